"""T1: three schedulers, one of them killed again and again, one stopped and continued: each occurrence of each
schedule still makes one job, none is missing, and the grid does not drift."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from callboard.runtime.job_view import JobInfo
from callboard.runtime.options import CallOptions
from callboard.runtime.schedule_record import stamp
from callboard.runtime.testing import settled
from callboard.runtime.triggers import Every, Policy
from faults.fleet import FAST
from faults.timed import QUEUE, Timed, percentile, up

END_SECONDS = 600.0  # for a slow machine to make up for what it could not do in time
EACH = Policy.create(coalesce=False, catch_up=1000)
KEEP_ALL = {"CALLBOARD_KEEP_COMPLETED_COUNT": "1000000", "CALLBOARD_KEEP_COMPLETED_SECONDS": "86400"}


@pytest.fixture(params=["redis_url", "mongo_url"])
async def timed(request: pytest.FixtureRequest, amqp_url: str, tmp_path: Path) -> AsyncIterator[Timed]:
    store = request.getfixturevalue(request.param)
    async with Timed(tmp_path, store=store, broker=amqp_url, settings={**FAST, **KEEP_ALL}) as timed:
        yield timed


async def make(timed: Timed, schedules: int, *, occurrences: int) -> list[str]:
    """Schedules that occur every second, so many times; the ids of the jobs that they are to make."""
    queue = timed.app.queue(QUEUE)
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    trigger = Every(1, start=start, end=start + timedelta(seconds=occurrences - 1))
    new = [
        queue.new_schedule("tick", trigger, id=f"s{number}", args=(), kwargs={}, options=CallOptions(), policy=EACH)
        for number in range(schedules)
    ]
    await queue.upsert_schedules(new)
    stamps = [stamp(round((start.timestamp() + step) * 1000)) for step in range(occurrences)]
    return [f"s{number}@{one}" for number in range(schedules) for one in stamps]


async def kill(timed: Timed, *, times: int, pause: float) -> None:
    killed = timed.fleet["repeatable-scheduler-0"]
    for _ in range(times):
        await asyncio.sleep(pause)
        killed.kill()
        killed.start()
        await up(killed)


async def check(timed: Timed, expected: list[str]) -> None:
    """One job for each occurrence, run once; none is missing, none is beside the grid, and each schedule knows."""
    queue = timed.app.queue(QUEUE)
    async with asyncio.timeout(END_SECONDS):
        while (await queue.queue_counts()).completed < len(expected):
            await asyncio.sleep(0.2)
    await settled(timed.app, QUEUE)
    jobs = await queue.get_jobs(["completed"])
    print(f"{len(jobs)} occurrences; {lateness(jobs)}")
    assert sorted(job.id for job in jobs) == sorted(expected)
    assert {job.attempts for job in jobs} == {1}
    infos = await queue.list_repeatables()
    assert {(info.next_run, info.totals["ran"], len(info.totals)) for info in infos} == {
        (None, len(expected) // len(infos), 1)
    }
    assert timed.fleet.complaints() == []


def lateness(jobs: list[JobInfo]) -> str:
    late = [job.created_at.timestamp() - due(job) for job in jobs]
    assert min(late) >= 0, "a job was made before its time"
    return f"made after their times: p50 {percentile(late, 50):.3f} s, p99 {percentile(late, 99):.3f} s"


def due(job: JobInfo) -> float:
    return datetime.fromisoformat(job.meta["schedule"]["occurrence"]).timestamp()


async def test_each_occurrence_makes_one_job_though_a_scheduler_is_killed_again_and_again(timed: Timed) -> None:
    await timed.start(schedulers=3, workers=1)
    expected = await make(timed, 40, occurrences=5)
    await kill(timed, times=3, pause=1.3)
    await check(timed, expected)


async def test_each_occurrence_makes_one_job_though_schedulers_are_stopped_past_every_lease(timed: Timed) -> None:
    await timed.start(schedulers=2, workers=1)
    expected = await make(timed, 20, occurrences=6)
    first, second = timed.fleet["repeatable-scheduler-0"], timed.fleet["repeatable-scheduler-1"]
    for stopped in (first, second, first):
        stopped.signal(signal.SIGSTOP)
        await asyncio.sleep(2.6)  # the lease is two seconds here
        stopped.signal(signal.SIGCONT)
    await check(timed, expected)


@pytest.mark.soak
async def test_a_thousand_schedules_every_second_with_a_scheduler_killed_every_five_seconds(timed: Timed) -> None:
    seconds = int(os.environ.get("SOAK_SECONDS", "60"))
    await timed.start(schedulers=3, workers=1)
    expected = await make(timed, int(os.environ.get("SCHEDULES", "1000")), occurrences=seconds)
    await kill(timed, times=seconds // 5, pause=5)
    await check(timed, expected)
