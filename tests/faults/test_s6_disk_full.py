"""S6: the store's disk is full, and later it is not.

Injects: a store whose data are on a file system of a few megabytes, which is filled up under the standard load and
kept full for two leases. Redis with `appendfsync everysec` stays, refuses all writes (MISCONF) and can be read; with
`always` it ends, and so does MongoDB: both are started again while the disk is still full, as whoever runs them would.
Bites: a handler was running when the disk was full; producers were told that an enqueue is uncertain, and a call from
here that the store is unavailable, and why; the server has ended, or still answers reads.
Passes: every accepted job completed after one run (or one more than its own failures); no worker declared dead, though
its counter stood still for two leases where everybody could see it; no process of ours and no actor was started again;
nobody tells more than a few lines about it; handlers start again within 10 s of the space; the audit clean, the
broker's queues empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec import Struct

from callboard import Callboard, EnqueueUncertain
from callboard.metadata.errors import StoreUnavailable
from faults.fleet import LEASE_SECONDS
from faults.lasting import begin_lasting, lasts
from faults.scene import Scene, elapsed
from faults.small_disk import CannotMount, SmallDisk
from faults.workload import QUEUES
from lacking import do_without
from servers import MongoServer, ProgramMissing, RedisServer, ServerFailed

RATE = 100.0
FULL_SECONDS = 2 * LEASE_SECONDS
RESUME_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
STARTS_IN_VAIN = 2
MOST_LINES = 20  # about the outage, by each process

Server = RedisServer | MongoServer


class Kind(Struct, frozen=True, kw_only=True):
    """`make`: a server that keeps its log in the first folder and its data in the second. `reason`: a part of what its
    clients are told; `stays`: whether it lives on without space."""

    make: Callable[[Path, Path], Server]
    megabytes: int
    stays: bool
    reason: str


def redis(appendfsync: str) -> Callable[[Path, Path], Server]:
    return lambda folder, data: RedisServer(folder, dir=str(data), appendfsync=appendfsync)


def mongo(folder: Path, data: Path) -> Server:
    assert data == folder / "data"
    # Else its journal alone takes hundreds of megabytes.
    return MongoServer(folder, wiredTigerEngineConfigString="log=(file_max=2MB,prealloc=false)")


KINDS = {
    "redis-everysec": Kind(make=redis("everysec"), megabytes=32, stays=True, reason="MISCONF"),
    "redis-always": Kind(make=redis("always"), megabytes=32, stays=False, reason=""),
    "mongodb": Kind(make=mongo, megabytes=64, stays=False, reason=""),
}


class Place(Struct, frozen=True):
    kind: Kind
    server: Server
    disk: SmallDisk


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind, folder = KINDS[request.param], tmp_path / "server"
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(SmallDisk(folder / "data", megabytes=kind.megabytes))
            server = kind.make(folder, disk.folder)
        except (ProgramMissing, CannotMount) as missing:
            do_without(f"{missing}.", in_ci="In CI every server must be there, and tests run as root.")
        yield Place(kind, stack.enter_context(server), disk)


async def refused(app: Callboard) -> EnqueueUncertain:
    """Ask until a job cannot be recorded; it is one job, however often."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await app.queue(QUEUES[0]).add("work", [0, False], job_id="asked-for")
            except EnqueueUncertain as uncertain:
                return uncertain


def start(server: Server) -> None:
    server.kill()  # one that ended by itself still has its keeper
    server.start()


async def start_in_vain(server: Server) -> None:
    """Whoever runs the server starts it again: it ends at once, or with the first write that it is asked for."""
    try:
        await asyncio.to_thread(start, server)
    except ServerFailed:
        return
    async with asyncio.timeout(PATIENCE_SECONDS):
        while server.running:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_store_without_space_costs_nothing_but_time(
    tmp_path: Path, seed: int, place: Place, amqp_url: str
) -> None:
    server, disk, stays = place.server, place.disk, place.kind.stays
    async with (
        Scene(tmp_path, seed=seed, store=server.url, broker=amqp_url, shares_broker=True) as scene,
        Callboard(broker=amqp_url, store=server.url, namespace=scene.namespace) as app,
    ):
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()
        await scene.note_finals()
        await begin_lasting(scene, app)

        uncertain = len(scene.journals("uncertain"))
        await asyncio.to_thread(disk.fill)
        assert lasts(scene, at=elapsed()), "the lasting job was over when the disk was full"
        told = await refused(app)
        full_since = elapsed()
        await scene.until(
            lambda: len(scene.journals("uncertain")) > uncertain, "an enqueue met the full disk", PATIENCE_SECONDS
        )
        if stays:
            assert sum(each.completed for each in (await scene.counts()).values()) > 0
        else:
            await scene.until(lambda: not server.running, "the server has ended", PATIENCE_SECONDS)
            for _ in range(STARTS_IN_VAIN):
                await start_in_vain(server)
        await asyncio.sleep(full_since + FULL_SECONDS - elapsed())
        assert server.running is stays

        await asyncio.to_thread(disk.free)
        if not stays:
            await asyncio.to_thread(start, server)
        freed = elapsed()
        await scene.working()
        await app.queue(QUEUES[0]).add("work", [0, False], job_id="asked-for")
        scene.occurrences |= {"asked-for"}

        assert [(member.name, member.lives) for member in scene.fleet if member.lives != 1 or not member.running] == []
        await scene.settle()
        verdict = await scene.judge()
        wait = scene.next_start(freed) or float("inf")
        lines = {member.name: about(member.output()) for member in scene.fleet}
        print(
            f"full for {freed - full_since:.1f} s, {len(scene.journals('uncertain')) - uncertain} uncertain answers; "
            f"from the space to the next start {wait:.2f} s; at most {max(lines.values())} lines; told: {told}"
        )
        assert isinstance(told.__cause__, StoreUnavailable)
        assert place.kind.reason in str(told)
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
        assert scene.fleet.lines("", "starting it again") == []
        assert max(lines.values()) <= MOST_LINES, lines
        assert wait <= RESUME_SECONDS


def about(output: str) -> int:
    return sum("unavailable" in line for line in output.splitlines())
