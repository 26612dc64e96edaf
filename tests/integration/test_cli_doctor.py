"""`callboard doctor`: what it says of servers that are well, of some that are not, and of data that do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.metadata.contract import Jobs, QueueControl
from callboard.metadata.job import Deduplication, Keep, NewJob
from callboard.runtime.cli.doctor import exit_code
from callboard.runtime.clock import SystemClock
from callboard.runtime.diagnosis import Finding, Level, diagnose
from callboard.runtime.settings import load_settings
from integration.cli_process import Cli, Place
from integration.redis_private import private_redis
from mongo_space import MongoSpace
from redis_space import RedisSpace
from servers import RedisServer


class LateClock(SystemClock):
    """Behind the time of everybody else."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def now(self) -> int:
        return super().now() - self._seconds * 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with private_redis(tmp_path_factory.mktemp("redis"), appendfsync="always") as server:
        yield server


@pytest.fixture
def space(server: RedisServer) -> RedisSpace:
    return RedisSpace(server.url)


async def _look(
    url: str, namespace: str, *, broker: str = "memory://", audit: bool = False, late: int = 0
) -> dict[str, Finding]:
    settings = load_settings(broker=broker, store=url, namespace=namespace)
    found = await diagnose(settings, LateClock(late), audit=audit)
    return {f"{one.about} {one.check}": one for one in found}


def test_servers_that_are_well_are_good_and_nothing_is_left_behind(amqp_url: str, server: RedisServer) -> None:
    place = Place(redis_url=server.url, amqp_url=amqp_url)
    try:
        ended = place.cli.run("doctor", "--json", "--audit")
        assert ended.code == 0, ended
        assert (ended.json["exit_code"], ended.json["warnings"], ended.json["errors"]) == (0, 0, 0)
        found = {(one["about"], one["check"]): one["message"] for one in ended.json["findings"]}
        assert list(found) == [
            ("broker", "reachable"),
            ("broker", "version"),
            ("broker", "permissions"),
            ("broker", "latency"),
            ("broker", "dead-letters"),
            ("store", "reachable"),
            ("store", "version"),
            ("store", "persistence"),
            ("store", "namespace"),
            ("store", "latency"),
            ("store", "permissions"),
            ("store", "write-latency"),
            ("store", "clock"),
            ("store", "audit"),
        ]
        assert found["store", "version"].startswith("redis://, version ")
        assert asyncio.run(place.keys()) == [f"{place.namespace}:epoch".encode()]
    finally:
        place.delete()


def test_wrong_credentials_are_an_error_that_does_not_show_them(server: RedisServer) -> None:
    port = server.port
    cli = Cli(broker="amqp://guest:hunter2@127.0.0.1:1/", store=f"redis://:hunter2@127.0.0.1:{port}/0")
    ended = cli.run("doctor")
    assert ended.code == 2
    assert f"redis://127.0.0.1:{port}/0 refused the credentials" in ended.stdout
    assert "hunter2" not in ended.stdout + ended.stderr


async def test_a_store_that_is_not_reached_or_has_a_wrong_url_is_an_error() -> None:
    for url, sentence in (
        ("redis://user:hunter2@127.0.0.1:1/0?timeout=2", "is unavailable"),
        ("redis://user:hunter2@host:hunter2/0", "cannot be read"),
        ("mongodb://user:hunter2@host:99999/x", "cannot be read"),
        ("mongodb://user:hunter2@host/x?tls=true&tlsCAFile=/none", "No such file"),
        ("postgres://user:hunter2@host/x", "no store is installed for postgres://***@host/x"),
    ):
        found = await _look(url, "any")
        assert found["store reachable"].level is Level.ERROR
        assert sentence in found["store reachable"].message
        assert "hunter2" not in str(found)


async def test_a_server_that_may_lose_jobs_is_a_warning_or_an_error(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        space = RedisSpace(server.url)
        found = await _look(server.url, "any")
        assert found["store redis-durability"].level is Level.WARNING
        assert "appendfsync everysec" in found["store redis-durability"].message
        assert exit_code(list(found.values())) == 1
        await space.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        found = await _look(server.url, "any")
        assert found["store reachable"].level is Level.ERROR
        assert "maxmemory-policy is allkeys-lru" in found["store reachable"].message
        accepted = await _look(f"{server.url}?allow_eviction=true", "any")
        assert accepted["store redis-eviction"].level is Level.WARNING
        assert exit_code(list(found.values())) == 2


async def test_clocks_that_differ_are_told(space: RedisSpace) -> None:
    levels = {}
    for late in (0, 20, 100):
        found = await _look(space.url, space.namespace, late=late)
        levels[late] = found["store clock"].level
    assert levels == {0: Level.GOOD, 20: Level.WARNING, 100: Level.ERROR}
    assert "s ahead of this machine's" in found["store clock"].message


async def test_a_user_who_may_not_write_is_told(space: RedisSpace, server: RedisServer) -> None:
    await (store := space.store()).open()  # the namespace is there
    await store.close()
    await space.command("ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@all", "-hset", "-hincrby")
    found = await _look(f"redis://reader:hunter2@127.0.0.1:{server.port}/0", space.namespace)
    assert found["store permissions"].level is Level.ERROR
    assert "hunter2" not in found["store permissions"].message


async def test_an_audit_names_what_does_not_fit_and_changes_nothing(space: RedisSpace) -> None:
    store, now = space.store(), SystemClock().now()
    await store.open()
    await store.get(QueueControl).register(["emails", "reports"])
    for queue in ("emails", "reports"):
        keys = [Deduplication(id=f"key-{n}") for n in range(3)]
        jobs = [
            NewJob(id=f"job-{n}", queue=queue, task="task", payload=b"", created_at=now, deduplication=key)
            for n, key in enumerate(keys)
        ]
        await store.get(Jobs).enqueue(jobs, now=now, grace=0)
    await store.close()
    prefix = f"{space.namespace}:{{emails}}:"
    await space.command("ZREM", f"{prefix}outbox", "job-0")
    await space.command("HDEL", f"{prefix}payload", "job-1")
    await space.command("ZADD", f"{prefix}waiting", now, "orphan")
    before = {key: await space.command("DUMP", key) for key in await space.keys()}

    settings = load_settings(broker="memory://", store=space.url, namespace=space.namespace)
    found = await diagnose(settings, SystemClock(), audit=True)
    faults = [one.message for one in found if one.about == "queue:emails"]
    assert len(faults) == 3
    assert any("job-0" in fault and "waiting" in fault for fault in faults)
    assert any("job-1" in fault and "no payload" in fault for fault in faults)
    assert any("orphan" in fault and "no record" in fault for fault in faults)
    assert [one.message for one in found if one.about == "queue:reports"] == [
        "in order: 3 jobs to do, 3 of them in the outbox, 0 ended"
    ]
    assert {one.level for one in found if one.about == "queue:emails"} == {Level.ERROR}
    assert {key: await space.command("DUMP", key) for key in await space.keys()} == before
    await space.delete()


async def test_a_standalone_mongodb_is_a_warning(mongo_url: str) -> None:
    space = MongoSpace(mongo_url)
    found = await _look(mongo_url, space.namespace, audit=True)
    assert found["store mongodb-standalone"].level is Level.WARNING
    assert found["store version"].message.startswith("mongodb://, version ")
    assert {one.check for one in found.values() if one.level is Level.ERROR} == set()
    assert {one["state"] for one in space.documents()} == {"store"}
    await space.delete()


async def test_a_counter_that_retention_will_put_right_is_a_warning(mongo_replica_url: str) -> None:
    space, now = MongoSpace(mongo_replica_url), SystemClock().now()
    store = space.store()
    await store.open()
    await store.get(QueueControl).register(["emails"])
    job = NewJob(id="job", queue="emails", task="task", payload=b"", created_at=now)
    await store.get(Jobs).enqueue([job], now=now, grace=0)
    await store.get(Jobs).cancel("emails", ["job"], now=now, keep=Keep())
    await store.close()
    space.change({"state": "group"}, {"$inc": {"count": 1}})
    found = await _look(mongo_replica_url, space.namespace, audit=True)
    assert found["queue:emails audit"].level is Level.WARNING
    assert "1 jobs are kept in 'cancelled:', and 2 are noted" in found["queue:emails audit"].message
    await space.delete()


def test_a_store_in_this_process_beside_a_broker_for_many_is_an_error(amqp_url: str, server: RedisServer) -> None:
    place = Place(redis_url=server.url, amqp_url=amqp_url)
    try:
        found = asyncio.run(_look("memory://", place.namespace, broker=amqp_url))
        assert found["store shared"].level is Level.ERROR
    finally:
        place.delete()
