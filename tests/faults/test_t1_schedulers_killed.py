"""T1: three schedulers, one of them killed again and again, one stopped and continued: each occurrence of each
schedule still makes one job, none is missing, and the grid does not drift."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from callboard.runtime.job_view import JobInfo
from callboard.runtime.options import CallOptions
from callboard.runtime.schedule_record import stamp
from callboard.runtime.testing import settled
from callboard.runtime.triggers import Every, Policy
from faults.fleet import FAST
from faults.timed import QUEUE, Timed, percentile, up

EACH = Policy.create(coalesce=False)
KEEP_ALL = {"CALLBOARD_KEEP_COMPLETED_COUNT": "1000000", "CALLBOARD_KEEP_COMPLETED_SECONDS": "86400"}


@pytest.fixture(params=["redis_url", "mongo_url"])
async def timed(request: pytest.FixtureRequest, amqp_url: str, tmp_path: Path) -> AsyncIterator[Timed]:
    store = request.getfixturevalue(request.param)
    async with Timed(tmp_path, store=store, broker=amqp_url, settings={**FAST, **KEEP_ALL}) as timed:
        yield timed


async def make(timed: Timed, schedules: int) -> dict[str, int]:
    """Schedules that occur every second; the first occurrence of each, in ms."""
    queue = timed.app.queue(QUEUE)
    new = [
        queue.new_schedule("tick", Every(1), id=f"s{number}", args=(), kwargs={}, options=CallOptions(), policy=EACH)
        for number in range(schedules)
    ]
    answers = await queue.upsert_schedules(new)
    return {answer.id: answer.next_run for answer in answers if answer.next_run is not None}


async def kill_every(timed: Timed, *, pause: float, seconds: float) -> int:
    """Until so many seconds have passed; how often a scheduler was killed."""
    killed = timed.fleet["repeatable-scheduler-0"]
    kills, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(pause)
        killed.kill()
        kills += 1
        killed.start()
        await up(killed)
    return kills


async def end(timed: Timed, firsts: dict[str, int]) -> float:
    """Pause every schedule, and wait for what they made; when that was, in seconds."""
    queue = timed.app.queue(QUEUE)
    paused_at = time.time()
    for start in range(0, len(firsts), 100):
        await asyncio.gather(*(queue.pause_repeatable(id) for id in list(firsts)[start : start + 100]))
    await settled(timed.app, QUEUE, timeout=120)
    return paused_at


async def check(timed: Timed, firsts: dict[str, int], paused_at: float) -> None:
    """One job for each occurrence from the first to the last, the last on its grid, and none missing at the end."""
    queue = timed.app.queue(QUEUE)
    jobs = await queue.get_jobs(["completed"])
    infos = {info.id: info for info in await queue.list_repeatables()}
    print(f"{len(jobs)} occurrences of {len(firsts)} schedules; {lateness(jobs)}")
    assert {job.attempts for job in jobs} == {1}
    made: dict[str, list[str]] = {id: [] for id in firsts}
    for job in jobs:
        made[job.id.partition("@")[0]].append(job.id)
    for id, first in firsts.items():
        ours = sorted(made[id])
        assert ours == [f"{id}@{stamp(first + 1000 * step)}" for step in range(len(ours))]
        assert paused_at - 5 < (first + 1000 * (len(ours) - 1)) / 1000 <= time.time()
        assert infos[id].totals == {"ran": len(ours)}
    assert timed.fleet.complaints() == []


def lateness(jobs: list[JobInfo]) -> str:
    late = [job.created_at.timestamp() - due(job) for job in jobs]
    assert min(late) >= 0, "a job was made before its time"
    return f"made after their times: p50 {percentile(late, 50):.3f} s, p99 {percentile(late, 99):.3f} s"


def due(job: JobInfo) -> float:
    return datetime.fromisoformat(job.meta["schedule"]["occurrence"]).timestamp()


async def test_each_occurrence_makes_one_job_though_a_scheduler_is_killed_again_and_again(timed: Timed) -> None:
    await timed.start(schedulers=3, workers=1)
    firsts = await make(timed, 40)
    assert await kill_every(timed, pause=1.3, seconds=5) >= 2
    await check(timed, firsts, await end(timed, firsts))


async def test_each_occurrence_makes_one_job_though_schedulers_are_stopped_past_every_lease(timed: Timed) -> None:
    await timed.start(schedulers=2, workers=1)
    firsts = await make(timed, 20)
    first, second = timed.fleet["repeatable-scheduler-0"], timed.fleet["repeatable-scheduler-1"]
    for stopped in (first, second, first):
        stopped.signal(signal.SIGSTOP)
        await asyncio.sleep(2.6)  # the lease is two seconds here
        stopped.signal(signal.SIGCONT)
    await check(timed, firsts, await end(timed, firsts))


@pytest.mark.soak
async def test_a_thousand_schedules_a_second_for_a_minute_with_a_scheduler_killed_every_five_seconds(
    timed: Timed,
) -> None:
    await timed.start(schedulers=3, workers=1)
    firsts = await make(timed, int(os.environ.get("SCHEDULES", "1000")))
    assert await kill_every(timed, pause=5, seconds=float(os.environ.get("SOAK_SECONDS", "60"))) >= 2
    await check(timed, firsts, await end(timed, firsts))
