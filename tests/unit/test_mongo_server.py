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
