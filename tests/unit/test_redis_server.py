"""What is said of a Redis server by what it tells of itself."""

from __future__ import annotations

import pytest

from callboard.metadata.redis.address import parse
from callboard.metadata.redis.server import ServerFacts, findings

WELL = {"redis_version": "7.0.15", "role": "master", "maxmemory_policy": "noeviction"}
DURABLE = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


def said(**info: str) -> list[str]:
    facts = {"here": ServerFacts({**WELL, **info}, DURABLE)}
    return [check.message for check in findings(facts, parse("redis://here:6379/0"))]


def test_a_server_that_is_well_is_not_spoken_of() -> None:
    assert said(aof_last_write_status="ok", rdb_last_bgsave_status="ok") == []


@pytest.mark.parametrize(
    ("field", "what_to_do"), [("aof_last_write_status", "restart it"), ("rdb_last_bgsave_status", "BGSAVE")]
)
def test_a_server_that_cannot_write_to_its_disk_is_told_with_what_to_do(field: str, what_to_do: str) -> None:
    (message,) = said(**{field: "err"})
    assert message.startswith(f"{field} is err: the server cannot write its data to disk; ")
    assert what_to_do in message
