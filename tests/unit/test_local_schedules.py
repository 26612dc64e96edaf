"""Schedules of one process, without a store behind them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from callboard import Callboard
from callboard.metadata.errors import StoreError
from callboard.metadata.job import NewJob
from callboard.runtime.errors import EnqueueUncertain
from callboard.runtime.local_schedules import LocalSchedule, LocalSchedules
from callboard.runtime.options import CallOptions
from callboard.runtime.triggers import At, Every, fires_at
from callboard.runtime.triggers.grid import from_ms

NOON = 1_795_348_800_000  # 2026-11-22 12:00:00 UTC


class _Producer:
    def __init__(self, failure: Exception) -> None:
        self.failures = [failure]
        self.told = asyncio.Event()
        self.refused: list[str] = []
        self.recorded: list[str] = []

    async def enqueue(self, jobs: Sequence[NewJob]) -> None:
        if self.failures:
            self.refused += [job.id for job in jobs]
            raise self.failures.pop()
        self.recorded += [job.id for job in jobs]
        self.told.set()


@pytest.mark.parametrize("failure", [StoreError("out of memory"), EnqueueUncertain((), "no answer")])
async def test_what_a_store_refused_is_tried_again_under_the_same_ids(failure: Exception) -> None:
    now, app, producer = [NOON], Callboard(), _Producer(failure)
    clock = SimpleNamespace(now=lambda: now[0], sleep=asyncio.sleep)
    stand_in: Any = SimpleNamespace(new_job=app.new_job, clock=clock, connections=SimpleNamespace(producer=producer))
    schedules = LocalSchedules(stand_in)
    once = At(from_ms(NOON + 10))
    schedules.add("ticks", "tick", once, id=None, args=(), kwargs={}, options=CallOptions())
    async with schedules.served(), asyncio.timeout(20):
        now[0] += 10
        while not producer.recorded:
            await asyncio.sleep(0.01)
    assert producer.recorded == producer.refused


def test_with_a_jitter_each_occurrence_runs_once_and_none_before_its_time() -> None:
    trigger = Every(10, start=from_ms(NOON), jitter=10)
    one = LocalSchedule(
        id="tick", queue="ticks", task_id="tick", trigger=trigger, args=(), kwargs={}, options=CallOptions()
    )
    one.begin(from_ms(NOON - 1))
    ran = []
    now = from_ms(NOON)
    while len(ran) < 300:
        assert one.runs_at is not None
        now = max(now, one.runs_at) + timedelta(milliseconds=30)
        occurrence = one.step(now)
        assert occurrence is not None
        assert fires_at(trigger, occurrence, "tick") <= now
        ran.append(occurrence)
    assert ran == [from_ms(NOON + 10_000 * place) for place in range(300)]


async def test_a_thread_may_add_and_remove_schedules_while_jobs_of_others_are_made() -> None:
    app, producer = Callboard(), _Producer(EnqueueUncertain((), "no answer"))
    often, options = Every(0.01, shortest=0), CallOptions()
    changing: list[threading.Thread] = []

    def change() -> None:
        schedules.add("ticks", "tick", often, id="added", args=(), kwargs={}, options=options)
        schedules.remove("ticks", "first")

    def new_job(*args: Any, **given: Any) -> NewJob:
        if schedules._serving is not None and not changing:  # in the midst of a look at them
            changing.append(threading.Thread(target=change))
            changing[0].start()
            changing[0].join()
        return app.new_job(*args, **given)

    clock = SimpleNamespace(now=app.clock.now, sleep=asyncio.sleep)
    stand_in: Any = SimpleNamespace(new_job=new_job, clock=clock, connections=SimpleNamespace(producer=producer))
    schedules = LocalSchedules(stand_in)
    for id in ("first", "second"):
        schedules.add("ticks", "tick", often, id=id, args=(), kwargs={}, options=options)
    async with schedules.served(), asyncio.timeout(60):
        while len(producer.recorded) < 10:
            await asyncio.sleep(0.01)
    assert changing


async def test_a_schedule_that_a_thread_adds_does_not_wait_for_the_next_look() -> None:
    app, producer = Callboard(), _Producer(EnqueueUncertain((), "no answer"))
    producer.failures.clear()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(3600 if seconds > 1 else seconds)  # only what was added wakes it

    clock = SimpleNamespace(now=app.clock.now, sleep=sleep)
    stand_in: Any = SimpleNamespace(new_job=app.new_job, clock=clock, connections=SimpleNamespace(producer=producer))
    schedules = LocalSchedules(stand_in)
    often = Every(0.01, shortest=0)

    def add() -> None:
        time.sleep(0.2)  # the loop is asleep by then
        schedules.add("ticks", "tick", often, id=None, args=(), kwargs={}, options=CallOptions())

    async with schedules.served():
        thread = threading.Thread(target=add)
        thread.start()
        async with asyncio.timeout(60):
            await producer.told.wait()
        thread.join()
