"""Callboard's side of the benchmark: an app for `callboard run worker`, and scripts that produce.

python callboard_jobs.py single|spread|callers|bulk JOBS FIRST     enqueue JOBS jobs, numbered from FIRST
python callboard_jobs.py latency JOBS QUEUE              one job at a time, on an idle system
python callboard_jobs.py keep JOBS SECONDS               fill the store with completed jobs, for so long at most
python callboard_jobs.py trim JOBS                       remove the oldest of them
python callboard_jobs.py declare QUEUES                  register and declare further job queues
python callboard_jobs.py completed                       how many completed jobs the store keeps
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dialogue import LATENCY_PAUSE_SECONDS, LATENCY_WARM_UP, answer, spent, wait_for_go
from marks import TEXT, Marks, hit
from msgspec import Raw

from callboard import Callboard
from callboard.metadata.contract import (
    Ending,
    Inspection,
    Jobs,
    Outcome,
    QueueControl,
    Ready,
    Retention,
    Sent,
    Ticket,
    Workers,
)
from callboard.metadata.job import Keep, NewJob, State
from callboard.runtime.cli.run import loop_factory
from callboard.runtime.options import CallOptions
from callboard.runtime.wire import Body, encode, encode_body

CALLERS = 100
BATCH = 128
TRIMMED_AT_ONCE = 1_000

app = Callboard()


@app.task(name="bench.mark", queue="bench")
async def mark(number: int, text: str) -> int:
    return hit(number)


@app.task(name="bench.mark_other", queue="other")
async def mark_other(number: int, text: str) -> int:
    return hit(number, "BENCH_MARKS_OTHER")


async def single(numbers: range) -> None:
    for number in numbers:
        await mark.enqueue(number, TEXT)


async def bulk(numbers: range) -> None:
    await app.queue("bench").add_bulk([{"task_id": "bench.mark", "args": [number, TEXT]} for number in numbers])


async def callers(numbers: range) -> None:
    """As in a web service: many at once, each with one job."""

    async def caller(mine: range) -> None:
        for number in mine:
            await mark.enqueue(number, TEXT)

    await asyncio.gather(*(caller(numbers[first::CALLERS]) for first in range(CALLERS)))


async def spread(numbers: range) -> None:
    """The backlog that `single` leaves, made faster: each job in a message of its own, its outbox entry settled."""
    connections, grace = app.connections, 60_000
    jobs = connections.store.get(Jobs)
    for start in range(0, len(numbers), BATCH):
        now = app.clock.now()
        batch = numbers[start : start + BATCH]
        new = [app.new_job("bench.mark", [number, TEXT], {}, CallOptions()) for number in batch]
        answers = await jobs.enqueue(new, now=now, grace=grace)
        ready = [
            Ready(job.queue, answer.id, answer.dispatch, job.priority, job.payload)
            for job, answer in zip(new, answers, strict=True)
        ]
        if not all(await asyncio.gather(*(connections.dispatcher.send_single(one) for one in ready))):
            raise RuntimeError("the broker has not confirmed every message")
        await jobs.published([Sent(one.queue, one.id, one.dispatch) for one in ready], now=now)


async def produce(how: str, jobs: int, first: int) -> None:
    ways = {"single": single, "spread": spread, "callers": callers, "bulk": bulk}
    async with app:
        await app.connections.dispatcher.declare("bench")
        wait_for_go()
        before = spent()
        await ways[how](range(first, first + jobs))
        answer(spent().since(before))


async def latency(jobs: int, queue: str) -> None:
    task, variable = (mark, "BENCH_MARKS") if queue == "bench" else (mark_other, "BENCH_MARKS_OTHER")
    marks = Marks(Path(os.environ[variable]))
    starts, results = [], []
    async with app:
        wait_for_go()
        for number in range(jobs + LATENCY_WARM_UP):
            began = time.monotonic_ns()
            job = await task.enqueue(number, TEXT)
            await job.result(timeout=60)
            ended = time.monotonic_ns()
            if number >= LATENCY_WARM_UP:
                starts.append((marks.moments[number] - began) / 1e6)
                results.append((ended - began) / 1e6)
            await asyncio.sleep(LATENCY_PAUSE_SECONDS)
        answer({"start": starts, "result": results})


async def keep(jobs: int, seconds: float) -> None:
    """Completed jobs with their results, as the system itself would leave them, without the broker."""
    async with app:
        store, clock = app.connections.store, app.clock
        boot = secrets.token_hex(16)
        await store.get(QueueControl).register(["bench"])
        await store.get(Workers).heartbeat(boot, ["bench"], info=b"", now=clock.now())
        operations = store.get(Jobs)
        deadline = time.monotonic() + seconds
        kept = 0

        async def life(ids: Sequence[str]) -> None:
            now = clock.now()
            bodies = [
                Body(id=id, queue="bench", task="bench.mark", created_at=now, args=Raw(encode([0, TEXT]))) for id in ids
            ]
            new = [NewJob(id=b.id, queue="bench", task=b.task, payload=encode_body(b), created_at=now) for b in bodies]
            await operations.enqueue(new, now=now, grace=60_000)
            await operations.claim("bench", boot, [Ticket(id, 1) for id in ids], now=now, keep_expired=Keep())
            outcomes = [
                Outcome(id=id, dispatch=1, owner=boot, ending=Ending.COMPLETED, result=b"0", history=b'{"attempt":1}')
                for id in ids
            ]
            await operations.finish("bench", outcomes, now=now, grace=60_000)

        async def lane(number: int) -> None:
            nonlocal kept
            while kept < jobs and time.monotonic() < deadline:
                size = min(BATCH, jobs - kept)
                kept += size
                await life([f"kept-{secrets.token_hex(12)}" for _ in range(size)])

        wait_for_go()
        await asyncio.gather(*(lane(number) for number in range(4)))
        await store.get(Workers).leave(boot, ["bench"])
        answer({"kept": kept})


async def trim(jobs: int) -> None:
    """And what is remembered of their ids."""
    async with app:
        store, now = app.connections.store, app.clock.now()
        wait_for_go()
        left = jobs
        while left > 0 and (
            ids := await store.get(QueueControl).clear(
                "bench", State.COMPLETED, before=now, limit=min(TRIMMED_AT_ONCE, left), now=now
            )
        ):
            left -= len(ids)
        while (await store.get(Retention).prune(["bench"], now=now + 1, adoption_window=0, limit=TRIMMED_AT_ONCE)).more:
            pass
        answer({"trimmed": jobs - left})


async def declare(queues: int) -> None:
    async with app:
        names = [f"declared-{number}" for number in range(queues)]
        wait_for_go()
        for start in range(0, queues, 50):
            await app.connections.store.get(QueueControl).register(names[start : start + 50])
            for name in names[start : start + 50]:
                await app.connections.dispatcher.declare(name)
        answer({"declared": queues})


async def completed() -> None:
    async with app:
        wait_for_go()
        counts = await app.connections.store.get(Inspection).counts(["bench"])
        answer({"completed": counts["bench"].completed})


def main() -> None:
    what, *rest = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        match what:
            case "latency":
                runner.run(latency(int(rest[0]), rest[1]))
            case "keep":
                runner.run(keep(int(rest[0]), float(rest[1])))
            case "trim":
                runner.run(trim(int(rest[0])))
            case "declare":
                runner.run(declare(int(rest[0])))
            case "completed":
                runner.run(completed())
            case how:
                runner.run(produce(how, int(rest[0]), int(rest[1])))


if __name__ == "__main__":
    main()
