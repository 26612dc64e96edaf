"""T1: three schedulers, one of them killed again and again, one stopped and continued: each occurrence of each
schedule still makes one job, none is missing, and the grid does not drift."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.runtime.job_view import JobInfo
from callboard.runtime.options import CallOptions
from callboard.runtime.schedule_record import stamp
from callboard.runtime.testing import settled
from callboard.runtime.triggers import Every, Policy
from faults.fleet import CONNECTED, FAST, Deployed, Fleet, Member, actor
from faults.scheduled import APP, QUEUE
from integration.cli_process import Place

SECONDS = 20.0
SCHEDULES = 100
EACH = Policy.create(coalesce=False)


@pytest.fixture
async def fleet(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    deployed = Deployed(namespace=place.namespace, store=redis_url, broker=amqp_url, settings=FAST)
    with Fleet(tmp_path / "fleet", deployed) as fleet:
        yield fleet
    await asyncio.to_thread(place.delete, QUEUE)


async def up(member: Member) -> None:
    async with asyncio.timeout(30):
        while not member.said(CONNECTED):
            await asyncio.sleep(0.02)


async def disturb(fleet: Fleet) -> int:
    """Until SECONDS have passed; how often a scheduler was killed."""
    killed, stopped = fleet["scheduler-1"], fleet["scheduler-2"]
    kills, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        stopped.signal(signal.SIGSTOP)
        await asyncio.sleep(1.3)
        killed.kill()
        kills += 1
        await asyncio.sleep(0.4)
        killed.start()
        await up(killed)
        stopped.signal(signal.SIGCONT)
        await asyncio.sleep(0.6)
    return kills


@pytest.mark.slow
async def test_each_occurrence_makes_one_job_whatever_happens_to_schedulers(fleet: Fleet) -> None:
    for number in range(1, 4):
        fleet.start(f"scheduler-{number}", actor("repeatable-scheduler", "stalled-recovery", app=APP))
    fleet.start("worker", actor("worker", app=APP, concurrency=50))
    await asyncio.gather(*(up(member) for member in fleet))
    deployed = fleet.deployed
    async with Callboard(broker=deployed.broker, store=deployed.store, namespace=deployed.namespace) as app:
        queue = app.queue(QUEUE)
        new = [
            queue.new_schedule(
                "tick", Every(1), id=f"s{number}", args=(), kwargs={}, options=CallOptions(), policy=EACH
            )
            for number in range(SCHEDULES)
        ]
        firsts = {answer.id: answer.next_run for answer in await queue.upsert_schedules(new)}
        kills = await disturb(fleet)
        paused_at = time.time()
        await asyncio.gather(*(queue.pause_repeatable(id) for id in firsts))
        await settled(app, QUEUE, timeout=30)
        jobs = await queue.get_jobs(["completed"])
        infos = {info.id: info for info in await queue.list_repeatables()}
    print(f"{len(jobs)} occurrences of {SCHEDULES} schedules in {SECONDS:g} s, {kills} kills; {lateness(jobs)}")
    assert kills >= 4
    assert {job.attempts for job in jobs} == {1}
    for id, first in firsts.items():
        assert first is not None
        ours = sorted(job.id for job in jobs if job.id.startswith(f"{id}@"))
        assert ours == [f"{id}@{stamp(first + 1000 * step)}" for step in range(len(ours))]
        last = (first + 1000 * (len(ours) - 1)) / 1000
        assert paused_at - 3 < last <= time.time()
        assert infos[id].totals == {"ran": len(ours)}
    assert fleet.complaints() == []


def lateness(jobs: list[JobInfo]) -> str:
    late = sorted(job.created_at.timestamp() - due(job) for job in jobs)
    assert late[0] >= 0, "a job was made before its time"
    return f"made after its time: p50 {late[len(late) // 2]:.3f} s, p99 {late[len(late) * 99 // 100]:.3f} s"


def due(job: JobInfo) -> float:
    return datetime.fromisoformat(job.meta["schedule"]["occurrence"]).timestamp()
