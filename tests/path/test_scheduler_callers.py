"""The scheduler where several call it: threads while it starts, a start that is not over, a child of its process."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
from multiprocessing.connection import Connection

import pytest

from callboard.runtime.errors import CallboardError
from callboard.runtime.scheduler import AsyncScheduler, Scheduler, SchedulerForked, SchedulerNotRunning
from path.schedulers import SOON

SEVERAL = {f"store{number}": "memory" for number in range(8)}  # so that a start takes a while


def test_a_thread_that_asks_while_the_scheduler_starts_gets_its_answer() -> None:
    scheduler = Scheduler(stores=SEVERAL, grace_seconds=5)
    failures: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        number = 0
        while not over.is_set() and number < 200:
            number += 1
            try:
                scheduler.add_task(print, "interval", seconds=60, id=f"task-{number}")
                scheduler.get_tasks()
                over.wait(0.003)
            except BaseException as failure:
                failures.append(failure)

    asking = threading.Thread(target=ask)
    asking.start()
    with scheduler:
        over.set()
        asking.join(SOON)
        assert not asking.is_alive()
        assert not failures
        added = {id for _, id in scheduler._tasks}
        assert {task.id for task in scheduler.get_tasks()} == added


async def test_a_shutdown_before_the_start_is_over_is_refused_and_the_scheduler_can_be_shut_down_then() -> None:
    before = asyncio.all_tasks()
    scheduler = AsyncScheduler(grace_seconds=5)
    starting = asyncio.create_task(scheduler.start())
    async with asyncio.timeout(SOON):
        while not scheduler.running:
            await asyncio.sleep(0)
        with pytest.raises(SchedulerNotRunning, match="while its start is awaited"):
            await scheduler.shutdown()
        assert await starting
        assert not await scheduler.start()
        assert not await scheduler.shutdown()
        assert await scheduler.shutdown()
    assert not scheduler.running
    assert asyncio.all_tasks() == before


async def test_a_start_in_a_loop_that_fails_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    scheduler = Scheduler(stores={"default": "memory", "second": "memory"}, grace_seconds=5)
    scheduler.add_task(print, "interval", seconds=60, store="second", args=[object()])
    with pytest.raises(CallboardError, match="has no JSON form"):
        scheduler.start()
    assert not scheduler.running
    async with asyncio.timeout(SOON):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # that is the case at hand
def test_a_fork_of_its_process_is_told_to_make_one_of_its_own() -> None:
    scheduler = Scheduler(grace_seconds=5)
    scheduler.add_task(print, "interval", seconds=60, id="task")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def in_the_child(answers: Connection) -> None:
        for call in (scheduler.get_tasks, scheduler.start, scheduler.pause, scheduler.shutdown):
            with contextlib.suppress(SchedulerForked):
                call()
                continue
            answers.send("told")
        with Scheduler() as own:
            answers.send(len(own.get_tasks()))

    with scheduler:
        child = context.Process(target=in_the_child, args=(there,), daemon=True)
        child.start()
        try:
            answers = [here.recv() if here.poll(SOON) else "nothing" for _ in range(5)]
        finally:
            child.kill()
            child.join()
            here.close()
            there.close()
        assert answers == ["told", "told", "told", "told", 0]
