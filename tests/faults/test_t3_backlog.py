"""T3: a backlog of due jobs goes out as fast as the broker takes it, and the scanner holds no more of it than a few
batches. BACKLOG sets how many jobs the long test drains."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from msgspec import Raw

from callboard.metadata.contract import Jobs, QueueControl
from callboard.metadata.job import NewJob
from callboard.runtime.wire import Body, encode, encode_body
from faults.timed import QUEUE, Timed

BATCH = 128
LANES = 4
HOUR = 3600 * 1000


def job(number: int, now: int, arguments: Raw) -> NewJob:
    body = Body(id=f"due-{number}", queue=QUEUE, task="tick", created_at=now, args=arguments)
    return NewJob(
        id=body.id, queue=QUEUE, task=body.task, payload=encode_body(body), created_at=now, run_at=now + number % HOUR
    )


async def fill(timed: Timed, jobs: int, *, size: int) -> None:
    """Jobs that became due in the course of an hour without a scanner."""
    store, then = timed.app.connections.store.get(Jobs), timed.app.clock.now() - HOUR
    arguments, batches = Raw(encode(["x" * size])), iter(range(0, jobs, BATCH))

    async def lane() -> None:
        for start in batches:
            some = [job(number, then, arguments) for number in range(start, min(start + BATCH, jobs))]
            await store.enqueue(some, now=then - 1, grace=HOUR)

    await asyncio.gather(*(lane() for _ in range(LANES)))
    await timed.app.connections.store.get(QueueControl).register([QUEUE])


def kilobytes(pid: int, name: str) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])


async def drain(timed: Timed, jobs: int, *, seconds: float) -> int:
    """Start a scanner over the backlog; by how many MB it has grown, at its largest."""
    queue = timed.app.queue(QUEUE)
    began = time.monotonic()
    await timed.start(scanners=1, workers=0, recovery=0)
    scanner = timed.fleet["delayed-scanner-0"]
    at_first, since = (await queue.queue_counts()).delayed, time.monotonic()
    small = kilobytes(scanner.pid, "VmRSS")
    async with asyncio.timeout(seconds):
        while (await queue.queue_counts()).delayed:
            await asyncio.sleep(0.2)
    rate = at_first / (time.monotonic() - since)
    grown = (kilobytes(scanner.pid, "VmHWM") - small) // 1024
    print(
        f"\n{jobs:,} due jobs: {time.monotonic() - began:.1f} s with the scanner's start, {rate:,.0f} jobs/s; "
        f"scanner {small // 1024} MB, at most {grown} MB more"
    )
    await asyncio.to_thread(timed.fleet.stop)
    counts = await queue.queue_counts()
    assert (counts.waiting, counts.unpublished) == (jobs, 0)
    assert timed.fleet.complaints() == []
    return grown


@pytest.mark.parametrize("store", ["redis_url", "mongo_url"])
async def test_a_backlog_of_due_jobs_goes_out_in_little_memory(
    request: pytest.FixtureRequest, amqp_url: str, tmp_path: Path, store: str
) -> None:
    async with Timed(tmp_path, store=request.getfixturevalue(store), broker=amqp_url) as timed:
        await fill(timed, 20_000, size=3000)  # 60 MB
        assert await drain(timed, 20_000, seconds=120) < 40


@pytest.mark.soak
async def test_a_million_due_jobs_go_out_in_the_same_memory(redis_url: str, amqp_url: str, tmp_path: Path) -> None:
    jobs = int(os.environ.get("BACKLOG", "1000000"))
    async with Timed(tmp_path, store=redis_url, broker=amqp_url) as timed:
        await fill(timed, jobs, size=200)
        assert await drain(timed, jobs, seconds=3600) < 40
