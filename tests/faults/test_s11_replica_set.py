"""S11: a MongoDB replica set loses its primary.

Injects, under the standard load, three times each: the primary of three members is told to step down; or gets SIGKILL
and starts again once another one is elected; or is cut off from the other two for longer than an election takes, while
clients still reach it. Bites: handlers were running when it began; another member was elected; one that was cut off
went back behind what only it had (a rollback); and of what plain clients wrote and one member acknowledged, some is
lost by a kill and by a cut, while nothing is that a majority acknowledged.
Passes: every accepted job completed, none started again but where its lease was lost; handlers start again within 10 s
of each election, after a cut within 20 s (what the old primary had taken waits there for a majority first); each
process says once that the store is away and once that it is back; the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from callboard import Callboard
from faults.fleet import LEASE_SECONDS
from faults.lasting import begin_lasting
from faults.partition import Partition
from faults.scene import Scene, elapsed
from lacking import do_without
from replica_set import ReplicaSet
from servers import MongoServer, ProgramMissing, ServerFailed

RATE = 150.0
CUT_RATE = 75.0  # everything goes through proxies in the test's own process
TIMES = 3
RESUME_SECONDS = 10.0
CUT_RESUME_SECONDS = 20.0
SETTLE_SECONDS = 60.0
CLIENTS = 16
WRITING_SECONDS = 1.0
CONTROLS = 2
MOST_KILLS = 10

AWAY = re.compile(r"is unavailable: .*; trying again$")
BACK = re.compile(r"the store is back$")

ALTERNATING = re.compile(r"(ab)*")

Failure = Callable[[ReplicaSet, Partition, MongoServer], Awaitable[None]]


@asynccontextmanager
async def three_members(folder: Path, failure: Failure) -> AsyncIterator[tuple[ReplicaSet, Partition]]:
    """Behind gates only where they are to be cut off: everything would go through the test's own process."""
    try:
        replicas = ReplicaSet(folder)
    except ProgramMissing as missing:
        do_without(f"{missing}; there is no replica set.", in_ci="In CI everything must be there.")
    partition = Partition(replicas)
    async with AsyncExitStack() as stack:
        if failure is cut_off:
            await stack.enter_async_context(partition)
        try:
            await asyncio.to_thread(replicas.start)
            yield replicas, partition
        finally:
            await asyncio.to_thread(replicas.kill)


async def step_down(replicas: ReplicaSet, partition: Partition, primary: MongoServer) -> None:
    await asyncio.to_thread(replicas.step_down)


async def kill(replicas: ReplicaSet, partition: Partition, primary: MongoServer) -> None:
    await asyncio.to_thread(primary.kill)


async def cut_off(replicas: ReplicaSet, partition: Partition, primary: MongoServer) -> None:
    assert partition.connections, "the members do not speak through the proxies"
    partition.cut_off(primary)


async def mend(replicas: ReplicaSet, partition: Partition, primary: MongoServer) -> None:
    """Return when all members are back."""
    partition.heal()
    if not primary.running:
        await asyncio.to_thread(primary.start)
    try:
        await asyncio.to_thread(replicas.whole)
    except ServerFailed as stuck:  # mongod 6.0 was seen to wait for its own lock for ever while it rolled back
        print(f"{stuck}; the member that came back is killed again")
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(primary.start)
        await asyncio.to_thread(replicas.whole)


@pytest.mark.soak
@pytest.mark.parametrize("failure", [step_down, kill, cut_off])
async def test_a_primary_that_goes_costs_nothing_but_time(
    tmp_path: Path, seed: int, failure: Failure, amqp_url: str
) -> None:
    async with (
        three_members(tmp_path / "mongodb", failure) as (replicas, partition),
        Scene(
            tmp_path,
            seed=seed,
            store=replicas.url,
            broker=amqp_url,
            shares_broker=True,
            settle_seconds=SETTLE_SECONDS,
        ) as scene,
        Callboard(broker=amqp_url, store=replicas.url, namespace=scene.namespace) as app,
    ):
        scene.start_actors()
        scene.start_producers(rate=CUT_RATE if failure is cut_off else RATE)
        await scene.up()
        elections: list[float] = []
        away: list[float] = []
        rolled_back = hit = 0
        while hit < TIMES:
            assert len(elections) < 2 * TIMES, "too few handlers were running when the primary went"
            await scene.note_finals()
            primary = await asyncio.to_thread(replicas.primary)
            rollbacks = await asyncio.to_thread(replicas.rollbacks, primary)
            await begin_lasting(scene, app, id=f"lasting-{len(elections)}")
            since = elapsed()
            hit += bool(scene.running(at=since))
            await failure(replicas, partition, primary)
            await asyncio.to_thread(replicas.primary, but=primary)
            elections.append(elapsed())
            away.append(elections[-1] - since)
            if failure is not step_down:
                await asyncio.sleep(scene.random.uniform(0, 2 * LEASE_SECONDS))
            await scene.working()
            await mend(replicas, partition, primary)
            rolled_back += await asyncio.to_thread(replicas.rollbacks, primary) > rollbacks

        await scene.settle()
        waits = [scene.next_start(moment) or float("inf") for moment in elections]
        told = {member.name: away_and_back(member.output()) for member in scene.fleet}
        print(
            f"{failure.__name__}: elected after {min(away):.2f} to {max(away):.2f} s, {rolled_back} rollbacks, "
            f"{len(scene.journals('uncertain'))} uncertain answers; from the election to the next start "
            f"{min(waits):.2f} to {max(waits):.2f} s; told {told}"
        )
        verdict = await scene.judge()
        print(f"{len(verdict.repeated)} repeated")
        assert max(waits) <= (CUT_RESUME_SECONDS if failure is cut_off else RESUME_SECONDS)
        assert not (odd := {name: letters for name, letters in told.items() if not ALTERNATING.fullmatch(letters)}), odd
        if failure is cut_off:
            assert rolled_back, "the primary that was cut off had nothing that the others had not"


def away_and_back(output: str) -> str:
    """One letter for each line that says so, in order."""
    letters = (("a" if AWAY.search(line) else "b" if BACK.search(line) else "") for line in output.splitlines())
    return "".join(letters)


# --- the method ---


@pytest.mark.soak
@pytest.mark.parametrize("failure", [kill, cut_off])
@pytest.mark.parametrize(("concern", "loses"), [(1, True), ("majority", False)])
async def test_a_primary_that_goes_loses_what_it_alone_acknowledged(
    tmp_path: Path, failure: Failure, concern: int | str, loses: bool
) -> None:
    written: list[int] = []
    async with three_members(tmp_path / "mongodb", failure) as (replicas, partition):
        client: Any = AsyncMongoClient(replicas.url, serverSelectionTimeoutMS=2000, socketTimeoutMS=10_000, w=concern)
        raw = client["raw"]["written"]
        lost: set[int] = set()
        times = 0
        while times < (MOST_KILLS if failure is kill and loses and not lost else CONTROLS):
            times += 1
            primary = await asyncio.to_thread(replicas.primary)
            over = asyncio.Event()
            writing = [asyncio.create_task(write(raw, written, lane, over)) for lane in range(CLIENTS)]
            await asyncio.sleep(WRITING_SECONDS)
            await failure(replicas, partition, primary)
            await asyncio.to_thread(replicas.primary, but=primary)
            over.set()
            await asyncio.gather(*writing)
            await mend(replicas, partition, primary)
            kept = {document["_id"] async for document in raw.find({}, {"_id": 1})}
            lost = set(written) - kept
        await client.close()
    print(f"{failure.__name__}, w={concern}: {times} times, {len(written)} acknowledged, {len(lost)} lost")
    assert bool(lost) is loses


async def write(collection: Any, written: list[int], lane: int, over: asyncio.Event) -> None:
    while not over.is_set():
        number = len(written) * CLIENTS + lane
        with suppress(PyMongoError):
            await collection.insert_one({"_id": number})
            written.append(number)
