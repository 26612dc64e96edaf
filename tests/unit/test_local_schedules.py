"""Schedules of one process, without a store behind them."""

from __future__ import annotations

import asyncio
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
        self.refused: list[str] = []
        self.recorded: list[str] = []

    async def enqueue(self, jobs: Sequence[NewJob]) -> None:
        if self.failures:
            self.refused += [job.id for job in jobs]
            raise self.failures.pop()
        self.recorded += [job.id for job in jobs]


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
