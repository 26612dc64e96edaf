from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.runtime.clock import SystemClock
from callboard.runtime.loop_watch import LoopWatch, Standstill
from callboard.runtime.testing import running


class Told(logging.Handler):
    """What was warned about while the loop could not run."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def told() -> Told:
    told = Told()
    log = logging.getLogger("callboard.watch")
    log.addHandler(told)
    yield told
    log.removeHandler(told)


def wait_for(told: Told, text: str) -> None:
    deadline = time.monotonic() + 60
    while not any(text in line for line in told.lines):
        assert time.monotonic() < deadline, told.lines
        time.sleep(0.01)


@pytest.mark.parametrize("timeout", [None, 50])
async def test_a_handler_that_holds_up_the_loop_is_named_while_it_does(told: Told, timeout: float | None) -> None:
    app = Callboard(broker="memory://", store="memory://")

    @app.task(name="blocks", timeout=timeout)
    async def blocks() -> None:
        wait_for(told, "has not run")

    async with running(app), LoopWatch(app.clock, warn_after=0.2):
        job = await blocks.options(job_id="the-job").enqueue()
        await job.result(60)
    (line, *_) = told.lines
    assert "job the-job of task blocks, line " in line
    assert f"of {Path(__file__)} in blocks, now line" in line
    assert "in wait_for" in line


async def test_what_holds_up_the_loop_outside_of_handlers_is_told_by_its_line(told: Told) -> None:
    async with LoopWatch(SystemClock(), warn_after=0.2):
        wait_for(told, "has not run")
    assert "no handler's own call, now line" in told.lines[0]


async def test_a_long_hold_up_is_told_each_time_it_has_doubled(told: Told) -> None:
    async with LoopWatch(SystemClock(), warn_after=0.1) as watch:
        deadline = time.monotonic() + 60
        while len(told.lines) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert watch.lag >= 0.4
        assert watch.take_worst() >= 0.4


async def test_a_loop_that_runs_is_left_in_peace(told: Told) -> None:
    async with LoopWatch(SystemClock(), warn_after=30, interval=0.01) as watch:
        await asyncio.sleep(0.2)
        assert watch.take_worst() < 30
    assert told.lines == []


class SteppedClock(SystemClock):
    def __init__(self) -> None:
        self.time = 0.0

    def elapsed(self) -> float:
        return self.time


async def test_a_loop_stands_still_for_as_long_as_who_asks_for_it_has_run() -> None:
    clock, answers = SteppedClock(), 0

    def runs_again() -> None:
        nonlocal answers
        answers += 1

    standstill = Standstill(clock, step=2.5, runs_again=runs_again)

    def ask(later: float) -> float:
        clock.time += later
        return standstill.ask()

    assert [ask(2.5), ask(2.5), ask(2.0)] == [0, 2.5, 4.5]
    assert ask(3600) == 7  # the process was stopped, or the machine slept
    assert answers == 0
    assert "no handler's own call, now line" in standstill.where()
    await asyncio.sleep(0)
    assert answers == 1
    assert [ask(3600), ask(2.5)] == [0, 2.5]
