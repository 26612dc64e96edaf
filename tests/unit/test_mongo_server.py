from __future__ import annotations

from typing import Any

import pytest

from callboard.metadata.mongo.server import ServerFacts, findings


def _findings(
    *, hello: dict[str, Any] | None = None, replication: dict[str, Any] | None = None, **more: Any
) -> dict[str, bool]:
    facts = ServerFacts(
        hello={"isWritablePrimary": True, "setName": "shop", **(hello or {})},
        version=more.get("version", "7.0.2"),
        features=more.get("features"),
        status=more.get("status"),
        replication=replication,
        indexes={},
    )
    return {check.name: check.refuse for check in findings(facts) if check.name != "mongodb-index"}


def test_a_primary_of_a_replica_set_that_keeps_its_journal_is_well() -> None:
    assert _findings(replication={"members": [{}, {}, {}]}) == {}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"version": "4.4.29"}, {"mongodb-version": True}),
        ({"version": "4.4.29", "features": "4.2"}, {"mongodb-version": True}),
        ({"version": "5.0.31", "features": "4.4"}, {"mongodb-features": True}),
        ({"version": "5.0.31", "features": "5.0"}, {}),
        ({"version": "5.0.31"}, {"mongodb-features": False}),
        ({"version": "6.0.5", "features": "5.0"}, {}),
        ({"version": "10.0.0", "features": "9.0"}, {}),
        ({"hello": {"msg": "isdbgrid"}}, {"mongodb-sharded": True}),
        ({"hello": {"isWritablePrimary": False}}, {"mongodb-primary": True}),
        ({"hello": {"setName": None}}, {"mongodb-standalone": False}),
        ({"status": {"storageEngine": {"persistent": False}}}, {"mongodb-durability": False}),
        ({"replication": {"writeConcernMajorityJournalDefault": False}}, {"mongodb-journal": False}),
        ({"replication": {"members": [{}, {}, {"arbiterOnly": True}]}}, {"mongodb-majority": False}),
    ],
)
def test_what_is_not_well_is_refused_or_warned_about(found: dict[str, Any], expected: dict[str, bool]) -> None:
    assert _findings(**found) == expected
