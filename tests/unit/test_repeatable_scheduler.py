"""What a scheduler fires: what was due when it asked, whatever its clock does from then on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from callboard.actors.repeatable_scheduler import RepeatableScheduler
from callboard.brokers.topology import Names
from callboard.metadata.schedule import Firing, Schedule
from callboard.metadata.schedules import DueSchedules, Fire, Fired
from callboard.runtime.actor import Options
from callboard.runtime.schedule_record import VERSION, Definition, first_state, occurrence_id
from callboard.runtime.settings import Settings
from callboard.runtime.triggers import Every, Policy, encode_policy, encode_trigger

NOON = 1_795_348_800_000
QUEUE = "ticks"


class JumpingClock:
    def __init__(self) -> None:
        self.passed = 0
        self.jump = 0

    def now(self) -> int:
        return NOON + self.jump + self.passed

    def elapsed(self) -> float:
        return self.passed / 1000


class FakeStage:
    """A stage, and its store with a schedule that occurs each second from noon on."""

    def __init__(self) -> None:
        self.clock, self.random, self.log = JumpingClock(), Random(1), logging.getLogger("test")
        self.settings = Settings(broker="memory://", store="memory://")
        self.names, self.instance, self.mailbox, self.options = Names("ns"), "i", "i", Options(queues=(QUEUE,))
        self.connections: Any = None
        self.metrics: Any = None
        self.dispatcher = self
        self.takes_ms = 0
        self.jumps_ms = 0  # the clock, while the store answers
        self.gap = 0
        self.fired: list[tuple[int, list[str]]] = []  # ms from noon, by which it was decided; ids of the jobs

    def capability(self, capability: type) -> FakeStage:
        return self

    async def due(self, queues: Sequence[str], *, now: int, limit: int) -> DueSchedules:
        self.clock.passed += self.takes_ms
        self.clock.jump = self.jumps_ms
        policy = Policy.create(coalesce=False, catch_up=1000)
        state, next_run = first_state(Every(1), id="tick", now=NOON)
        schedule = Schedule(
            id="tick",
            queue=QUEUE,
            trigger=encode_trigger(Every(1)),
            definition=msgspec.json.encode(
                Definition(version=VERSION, task="task", priority=5, policy=Raw(encode_policy(policy)))
            ),
            state=state,
            next_run=next_run,
            created_at=NOON,
            updated_at=NOON,
        )
        return DueSchedules([schedule], None, self.gap)

    async def fire(self, queue: str, firings: Sequence[Firing], *, now: int, grace: int) -> list[Fired]:
        self.fired += [(now - NOON, [job.id for job in firing.jobs]) for firing in firings]
        return [Fired(firing.id, Fire.MOVED) for firing in firings]


@pytest.fixture
async def stage() -> FakeStage:
    return FakeStage()


def scheduler(stage: Any) -> RepeatableScheduler:
    return RepeatableScheduler(stage)


@pytest.mark.parametrize("jump", [0, 10_000, -10_000])
async def test_a_clock_that_jumps_while_the_store_answers_neither_fires_early_nor_puts_off(
    stage: FakeStage, jump: int
) -> None:
    stage.clock.passed, stage.takes_ms, stage.jumps_ms = 2500, 3, jump
    await scheduler(stage).round()
    assert stage.fired == [(2503, [occurrence_id("tick", NOON + second * 1000) for second in (1, 2)])]


async def test_a_store_whose_clock_is_behind_decides_what_has_occurred(stage: FakeStage) -> None:
    stage.clock.passed, stage.takes_ms, stage.gap = 2500, 3, -1000
    await scheduler(stage).round()
    assert stage.fired == [(1503, [occurrence_id("tick", NOON + 1000)])]
