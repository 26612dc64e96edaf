"""S5: the store's machine loses its power.

Injects: a disk that forgets what was not flushed (power_disk.py), three times under the standard load; the server
starts again once an enqueue has met the outage. Bites: each time the disk proves that it forgets, handlers were
running and producers were told that an enqueue is uncertain; and of what plain clients wrote, the settings that are not
durable lose some.
Passes, on a store that states that it is durable: every accepted job completed after one run (or one more than its own
failures), no worker declared dead, the audit clean. On a Redis with `appendfsync everysec`: no accepted job is lost but
those that were accepted in the last second or so before and of which no ticket spoke: delayed ones, by their producer
or until their retry, and those that were over already; repeats are of what it forgot.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from faults.checker import Evidence, Forgotten, check
from faults.ledger import Event, read
from faults.power_disk import PowerDisk
from faults.scene import Scene, describe, elapsed, leases_lost
from servers import MongoServer, RedisServer, ServerFailed

RATE = 150.0
SLOW = 80.0  # for what is late not to be taken for lost
LOSSES = 3
CLIENTS = 16
WRITING_SECONDS = 2.5
PATIENCE_SECONDS = 60.0
FORGOTTEN_SECONDS = 3.0  # before the power loss, of everysec: a flush a second, and one that is late
MEGABYTES = 1500

Server = RedisServer | MongoServer
SERVERS: dict[str, Callable[[Path], Server]] = {
    "redis always": lambda folder: RedisServer(folder, appendfsync="always"),
    "redis everysec": RedisServer,
    "mongodb": MongoServer,
    "mongodb replica set": lambda folder: MongoServer(folder, replica_set=True),
}


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["redis always", "mongodb", "mongodb replica set"])
async def test_a_durable_store_that_loses_its_power_costs_nothing_but_time(
    tmp_path: Path, seed: int, disk: PowerDisk, kind: str, amqp_url: str
) -> None:
    with SERVERS[kind](disk.folder / "store") as server:
        async with Scene(tmp_path, seed=seed, store=server.url, broker=amqp_url, shares_broker=True) as scene:
            scene.start_actors()
            scene.start_producers(rate=RATE)
            await scene.up()
            for _ in range(LOSSES):
                await scene.note_finals()
                await scene.a_long_run()
                assert scene.running(at=elapsed()), "no handler was running"
                await lose_power(scene, disk, server)
                await scene.working()
            await scene.settle()
            verdict = await scene.judge()
            print(f"{disk.losses} power losses, {len(scene.journals('uncertain'))} uncertain answers")
            assert disk.losses == LOSSES
            assert verdict.repeated == ()
            await scene.assert_nobody_was_given_up()


async def lose_power(scene: Scene, disk: PowerDisk, server: Server) -> float:
    """In the midst of work; when. The server runs again."""
    await asyncio.to_thread(disk.settle)
    await scene.working()
    uncertain, moment = len(scene.journals("uncertain")), elapsed()
    await asyncio.to_thread(disk.lose_power, server)
    # A driver that waits for its server hides an outage that is short.
    await scene.until(
        lambda: len(scene.journals("uncertain")) > uncertain, "an enqueue meets the outage", PATIENCE_SECONDS
    )
    await asyncio.to_thread(start_again, disk, server)
    await scene.working()
    return moment


def start_again(disk: PowerDisk, server: Server) -> None:
    """A Redis whose file ends in what was never written says that it is to be repaired, and does not start."""
    try:
        server.start()
    except ServerFailed as failed:
        if "redis-check-aof --fix" not in str(failed):
            raise
        (manifest,) = disk.folder.glob("store/appendonlydir/*.manifest")
        repair = ["redis-check-aof", "--fix", str(manifest)]
        print(subprocess.run(repair, input="y\n", capture_output=True, text=True, timeout=60, check=True).stdout)
        server.start()


@pytest.mark.soak
async def test_a_store_that_flushes_once_a_second_and_loses_its_power_loses_no_job_that_a_ticket_speaks_of(
    tmp_path: Path, seed: int, disk: PowerDisk, amqp_url: str
) -> None:
    with SERVERS["redis everysec"](disk.folder / "store") as server:
        async with Scene(
            tmp_path, seed=seed, store=server.url, broker=amqp_url, shares_broker=True, settle_seconds=PATIENCE_SECONDS
        ) as scene:
            scene.start_actors()
            scene.start_producers(rate=SLOW)
            await scene.up()
            moments = [await lose_power(scene, disk, server) for _ in range(LOSSES)]
            await scene.settle()

            lapses = [Forgotten(since=moment - FORGOTTEN_SECONDS, until=moment + 1) for moment in moments]
            finals, ledger = await scene.finals(), read(scene.ledger)
            due = {line.job: int(line.value) for line in scene.journals("submitted")}
            accepted = {line.job: line.value for line in scene.journals("accepted")}
            over = {entry.run.job for entry in ledger if entry.event is Event.END}
            gone = accepted.keys() - finals.keys()
            failed = {entry.run.job for entry in ledger if entry.event is Event.FAILED}
            unsent = {job for job in gone - over if due[job] or job in failed}
            verdict = check(
                Evidence(
                    submitted=frozenset(due),
                    accepted=frozenset(accepted.keys() - unsent - (gone & over)),
                    finals={job: str(record.state) for job, record in finals.items()},
                    ledger=ledger,
                    due=due,
                    refused=frozenset(scene.refused()),
                    leases_lost=leases_lost(finals.values()),
                    forgotten=lapses,
                )
            )
            print(f"{verdict} | forgotten with their ends {len(gone & over)}, delayed ones forgotten {len(unsent)}")
            assert verdict.sound, describe(verdict)
            assert all(_within(accepted[job], lapses) for job in unsent), "forgotten though it was flushed"
            assert verdict.repeated or gone, "nothing was forgotten"
            assert await scene.audit() == []
            assert scene.fleet.complaints() == []


def _within(moment: float, lapses: list[Forgotten]) -> bool:
    return any(lapse.since <= moment <= lapse.until for lapse in lapses)


# --- the method ---


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "loses"), [("redis always", False), ("redis everysec", True)])
async def test_the_disk_forgets_what_redis_did_not_flush(disk: PowerDisk, kind: str, loses: bool) -> None:
    with SERVERS[kind](disk.folder / "store") as server:
        redis = Redis.from_url(server.url)

        async def write() -> None:
            await redis.incr("written")

        written = await write_until_the_power_is_lost(disk, server, write, RedisError)
        kept = int(await redis.get("written") or 0)
        await redis.aclose()
    print(f"{kind}: {written} acknowledged, {written - kept} lost")
    assert (kept < written) is loses


@pytest.mark.soak
@pytest.mark.parametrize(
    ("concern", "loses"),
    [({"w": 1, "journal": False}, True), ({"w": 1, "journal": True}, False), ({"w": "majority"}, False)],
)
async def test_the_disk_forgets_what_mongodb_did_not_flush(
    disk: PowerDisk, concern: dict[str, Any], loses: bool
) -> None:
    with SERVERS["mongodb replica set"](disk.folder / "store") as server:
        client: Any = AsyncMongoClient(server.url, serverSelectionTimeoutMS=2000, **concern)

        async def write() -> None:
            await client["raw"]["written"].insert_one({})

        written = await write_until_the_power_is_lost(disk, server, write, PyMongoError)
        kept = await client["raw"]["written"].count_documents({})
        await client.close()
    print(f"{concern}: {written} acknowledged, {written - kept} lost")
    assert (kept < written) is loses


async def write_until_the_power_is_lost(
    disk: PowerDisk, server: Server, write: Callable[[], Awaitable[None]], failure: type[Exception]
) -> int:
    """How many writes were acknowledged."""
    acknowledged = 0

    async def go_on() -> None:
        nonlocal acknowledged
        with suppress(failure):
            while True:  # until the server is gone
                await write()
                acknowledged += 1

    await asyncio.to_thread(disk.settle)
    writing = [asyncio.create_task(go_on()) for _ in range(CLIENTS)]
    await asyncio.sleep(WRITING_SECONDS)
    await asyncio.to_thread(disk.lose_power, server)
    await asyncio.gather(*writing)
    await asyncio.to_thread(server.start)
    return acknowledged
