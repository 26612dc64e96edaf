"""The fixtures that users get, on servers that are named, and in memory."""

from __future__ import annotations

from pathlib import Path

from containers.test_fixtures import run

NOWHERE = "unix:///nowhere.sock"


def test_named_servers_are_used(tmp_path: Path, amqp_url: str, redis_url: str, mongo_url: str) -> None:
    given = {"CALLBOARD_TEST_AMQP": amqp_url, "CALLBOARD_TEST_REDIS": redis_url, "CALLBOARD_TEST_MONGO": mongo_url}
    said = run(tmp_path, DOCKER_HOST=NOWHERE, **given)
    assert "6 passed" in said, said
