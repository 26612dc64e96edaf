"""Fixtures of the fault tests: servers that may be killed, and the seed of what is done to them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from faults.power_disk import PowerDisk
from faults.skew import Skew, build
from faults.small_disk import CannotMount
from lacking import do_without
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


@pytest.fixture(scope="session")
def skew_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What moves a process's wall clock; see faults.skew."""
    try:
        return build(tmp_path_factory.mktemp("skew"))
    except ProgramMissing as missing:
        do_without(f"{missing}; no clock can be moved.", in_ci="In CI everything must be there.")


@pytest.fixture
def store_skew(tmp_path: Path, skew_library: Path) -> Skew:
    """The clock of `skewed_store`."""
    return Skew(skew_library, tmp_path / "store.skew")


@pytest.fixture(params=["redis", "mongodb"])
def skewed_store(
    request: pytest.FixtureRequest, tmp_path: Path, store_skew: Skew
) -> Iterator[RedisServer | MongoServer]:
    """Either store, of the test's own, whose wall clock it may move."""
    moved = store_skew.environment
    if request.param == "redis":
        yield from _serve(lambda: RedisServer(tmp_path / "redis", environment=moved, appendfsync="always"))
    else:
        yield from _serve(lambda: MongoServer(tmp_path / "mongodb", environment=moved))


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PowerDisk]:
    """One that loses its power, of the MEGABYTES of the test's module."""
    try:
        with PowerDisk(tmp_path / "disk", megabytes=request.module.MEGABYTES) as disk:
            yield disk
    except CannotMount as cannot:
        do_without(f"no power can be lost here: {cannot}.", in_ci="In CI tests run as root.")


@pytest.fixture
def own_rabbitmq(tmp_path: Path) -> Iterator[RabbitMQServer]:
    yield from _serve(lambda: RabbitMQServer(tmp_path / "rabbitmq"))


def _serve(make: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = make()
    except ProgramMissing as missing:
        do_without(f"{missing}; a server that others use cannot be killed.", in_ci="In CI everything must be there.")
    with server:
        yield server
