"""Fixtures of the fault tests: servers that may be killed, and the seed of what is done to them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from servers import MongoServer, ProgramMissing, RabbitMQServer, RedisServer

Server = TypeVar("Server", RedisServer, RabbitMQServer, MongoServer)


@pytest.fixture
def seed() -> int:
    """Of the faults and of the load; FAULTS_SEED (or SOAK_SEED) repeats a run as far as the machine lets it."""
    given = os.environ.get("FAULTS_SEED") or os.environ.get("SOAK_SEED")
    return int(given or secrets.randbelow(1_000_000))


@pytest.fixture
def durable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own that keeps every write it has answered."""
    yield from _serve(lambda: RedisServer(tmp_path / "redis", appendfsync="always"))


@pytest.fixture(params=["redis", "mongodb"])
def durable_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer | MongoServer]:
    """Either store, of the test's own, which keeps every write it has answered."""
    if request.param == "redis":
        yield from _serve(lambda: RedisServer(tmp_path / "redis", appendfsync="always"))
    else:
        yield from _serve(lambda: MongoServer(tmp_path / "mongodb"))


@pytest.fixture
def own_rabbitmq(tmp_path: Path) -> Iterator[RabbitMQServer]:
    yield from _serve(lambda: RabbitMQServer(tmp_path / "rabbitmq"))


def _serve(make: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = make()
    except ProgramMissing as missing:
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(f"{missing}. In CI every server must be there.", pytrace=False)
        pytest.skip(f"{missing}; a server that others use cannot be killed")
    with server:
        yield server
