"""S7: the store's disk takes 5 ms or 50 ms to flush, or fails to.

Injects: each fdatasync of the server is held up by strace (traced.py); or the n-th of a thread fails with EIO. A Redis
with `appendfsync always` ends of that; with `everysec` it refuses writes (MISCONF) for ever, and recovery says what to
do. Then it is started again, on a disk that is well. Bites: strace tells of each flush that it has held up or failed;
a Redis whose flush failed has ended, or is told of, and producers were told that an enqueue is uncertain.
Passes, under the standard load: every accepted job completed after one run (or one more than its own failures), no
worker declared dead, the audit clean, the broker's queues empty. And where each flush takes 5 ms, with `always`, which
waits for it before it answers, at least 40 % as many jobs a second as with `everysec` in the same run: many answers
share a flush.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from callboard import Callboard
from faults.fleet import SERVES, actor
from faults.scene import SETTINGS, Scene
from faults.tireless_tasks import APP, QUEUE
from faults.traced import CannotTrace, Strace, TracedMongo, TracedRedis, failing, slow
from lacking import do_without
from servers import ProgramMissing

RATE = 150.0
WORKING_SECONDS = float(os.environ.get("SOAK_SECONDS") or 60) / 4  # two delays each of three stores
PATIENCE_SECONDS = 120.0
FAILS_AT = 40
TOLD = r"aof_last_write_status is err.*restart it"
JOBS = 20_000
ROUNDS = 2
BATCH = 500
LANES = 4
LEAST_PART = 0.4
UNLIKE_FAST = {"CALLBOARD_LEASE_SECONDS": "10", "CALLBOARD_KEEP_COMPLETED_COUNT": "1000"}

Server = TracedRedis | TracedMongo
SERVERS: dict[str, Callable[[Path, Strace], Server]] = {
    "redis always": lambda folder, strace: TracedRedis(folder, strace=strace, appendfsync="always"),
    "redis everysec": lambda folder, strace: TracedRedis(folder, strace=strace),
    "mongodb replica set": lambda folder, strace: TracedMongo(folder, strace=strace, replica_set=True),
}


@contextmanager
def serving(kind: str, folder: Path, fault: str | None) -> Iterator[Server]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        server = SERVERS[kind](folder, Strace(folder / "flushes", fault))
    except (ProgramMissing, CannotTrace) as missing:
        do_without(
            f"no flush can be held up: {missing}. Install strace and the servers, and allow ptrace.",
            in_ci="In CI every program must be there, and ptrace be allowed.",
        )
    with server:
        yield server


# --- slow ---


@pytest.mark.soak
@pytest.mark.parametrize("milliseconds", [5, 50])
@pytest.mark.parametrize("kind", ["redis always", "redis everysec", "mongodb replica set"])
async def test_a_store_whose_flushes_take_long_costs_nothing_but_time(
    tmp_path: Path, seed: int, kind: str, milliseconds: int, amqp_url: str
) -> None:
    with serving(kind, tmp_path / "store", slow(milliseconds)) as server:
        async with Scene(
            tmp_path,
            seed=seed,
            store=server.url,
            broker=amqp_url,
            shares_broker=True,
            settle_seconds=PATIENCE_SECONDS,
        ) as scene:
            async with Callboard(broker=amqp_url, store=server.url, namespace=scene.namespace):
                pass  # MongoDB's indexes: ten processes that make them at once take each other more than ten seconds
            scene.start_actors()
            scene.start_producers(rate=RATE)
            await scene.up()
            before = server.strace.injected()
            since = time.monotonic()
            while time.monotonic() < since + WORKING_SECONDS:
                await scene.note_finals()
                await asyncio.sleep(1)
            held_up = server.strace.injected() - before
            await scene.settle()
            verdict = await scene.judge()
            print(f"{kind}, {milliseconds} ms: {held_up} flushes in {WORKING_SECONDS:g} s were held up")
            assert held_up >= WORKING_SECONDS / 2
            assert verdict.repeated == ()
            await scene.assert_nobody_was_given_up()


@pytest.mark.soak
async def test_a_redis_that_waits_five_milliseconds_for_each_flush_does_two_fifths_of_what_one_does_that_does_not_wait(
    tmp_path: Path, seed: int, amqp_url: str
) -> None:
    kinds = {("redis everysec", 5): 0.0, ("redis always", 5): 0.0, ("redis always", 50): 0.0}
    for turn in range(ROUNDS):
        for kind, milliseconds in kinds:
            folder = tmp_path / f"{turn}-{kind.split()[1]}-{milliseconds}"
            with serving(kind, folder, slow(milliseconds)) as server:
                rate = await jobs_a_second(folder, seed, server.url, amqp_url)
                flushes = server.strace.injected()
            print(f"{kind}, {milliseconds} ms: {rate:,.0f} jobs/s, {flushes} flushes were held up", flush=True)
            assert flushes > 1
            kinds[kind, milliseconds] = max(rate, kinds[kind, milliseconds])
    part = {kind: rate / kinds["redis everysec", 5] for kind, rate in kinds.items()}
    print({f"{kind} {milliseconds} ms": f"{100 * each:.0f} %" for (kind, milliseconds), each in part.items()})
    assert part["redis always", 5] >= LEAST_PART


async def jobs_a_second(folder: Path, seed: int, store: str, broker: str) -> float:
    """From the first call of an enqueue to the last end, of JOBS short jobs."""
    async with Scene(
        folder, seed=seed, store=store, broker=broker, shares_broker=True, settings={**SETTINGS, **UNLIKE_FAST}
    ) as scene:
        worker = scene.fleet.start("worker-1", actor("worker", app=APP, queues=[QUEUE], concurrency=100))
        scene.fleet.start("others", actor("stalled-recovery", "delayed-scanner", "retention", app=APP))
        await scene.until(lambda: worker.said(SERVES), "the worker serves", PATIENCE_SECONDS)
        async with Callboard(broker=broker, store=store, namespace=scene.namespace) as app:
            queue, batches = app.queue(QUEUE), iter(range(0, JOBS, BATCH))

            async def lane() -> None:
                for start in batches:
                    await queue.add_bulk(
                        [{"task_id": "mark", "args": [start + n, ""]} for n in range(BATCH)],
                    )

            since = time.monotonic()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(lane() for _ in range(LANES)))
                while (counts := await queue.queue_counts()).waiting + counts.delayed + counts.active:
                    await asyncio.sleep(0.1)
            took = time.monotonic() - since
        await scene.stop()
        assert scene.fleet.complaints("FailsOnce") == []
        return JOBS / took


# --- failing ---


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["redis always", "redis everysec"])
async def test_a_redis_of_which_a_flush_fails_costs_nothing_but_time(
    tmp_path: Path, seed: int, kind: str, amqp_url: str
) -> None:
    with serving(kind, tmp_path / "store", None) as server:
        async with Scene(tmp_path, seed=seed, store=server.url, broker=amqp_url, shares_broker=True) as scene:
            scene.start_actors()
            scene.start_producers(rate=RATE)
            await scene.up()
            ends = kind == "redis always"
            uncertain = len(scene.journals("uncertain"))

            # A new life, since strace counts the flushes of one.
            server.strace.fault = failing(FAILS_AT if ends else 3)
            await asyncio.to_thread(restart, server)
            await scene.until(lambda: server.strace.injected() == 1, "a flush fails", PATIENCE_SECONDS)
            if ends:
                await scene.until(lambda: not server.running, "the server has ended", PATIENCE_SECONDS)
            else:
                await scene.until(
                    lambda: bool(scene.fleet.lines("stalled-recovery", TOLD)), "it is told", PATIENCE_SECONDS
                )
            await scene.until(
                lambda: len(scene.journals("uncertain")) > uncertain, "an enqueue meets the failure", PATIENCE_SECONDS
            )
            assert server.running is not ends
            server.strace.fault = None
            await asyncio.to_thread(restart, server)
            await scene.working()
            await scene.settle()
            verdict = await scene.judge()
            print(f"{kind}: {len(scene.journals('uncertain')) - uncertain} uncertain answers")
            assert server.strace.injected() == 1
            assert "fsync" in server.log.read_text()
            assert verdict.repeated == ()
            await scene.assert_nobody_was_given_up()


def restart(server: Server) -> None:
    server.kill()
    server.start()
