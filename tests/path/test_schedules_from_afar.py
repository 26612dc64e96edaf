"""Changes that one process makes and another's scheduler obeys: how soon, by ids and by definitions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from callboard import Queue
from callboard.runtime.job_view import JobInfo
from integration.cli_process import APP, Running, environment
from path.place import Place

SOON = 60.0
AT_ONCE = 6.0  # under load; a scheduler that was not woken would sleep for 12 s. What it took is printed.
BY_ID, BY_DEFINITION = "by its id", "by its definition"


@pytest.fixture
async def sums(place: Place) -> AsyncIterator[Queue]:
    """The queue of an app that is served by a scheduler and a worker in processes of their own."""
    settings = environment(broker=place.broker, store=place.store, namespace=place.namespace)
    scheduler = Running(("run", "repeatable-scheduler"), settings)
    worker = Running(("run", "worker", "--app", APP), settings)
    with scheduler, worker:
        await asyncio.gather(*(asyncio.to_thread(one.wait_for, "connected; running") for one in (scheduler, worker)))
        async with place.open() as app:
            yield app.queue("sums")
            await app.queue("sums").remove_all_repeatables()


async def jobs_made_after(queue: Queue, moment: float) -> list[JobInfo]:
    """By occurrences, the oldest first."""
    jobs = await queue.get_jobs(asc=True)
    return [job for job in jobs if job.created_at.timestamp() > moment and "manual" not in job.meta["schedule"]]


async def first_after(queue: Queue, moment: float, fits: Callable[[JobInfo], bool] = lambda job: True) -> JobInfo:
    async with asyncio.timeout(SOON):
        while not (found := [job for job in await jobs_made_after(queue, moment) if fits(job)]):
            await asyncio.sleep(0.02)
    return found[0]


async def timed(change: Awaitable[Any]) -> tuple[float, float]:
    began = time.time()
    await change
    return began, time.time()


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("rabbitmq+redis", BY_ID),
        ("rabbitmq+mongodb", BY_DEFINITION),
        pytest.param("rabbitmq+redis", BY_DEFINITION, marks=pytest.mark.soak),
        pytest.param("rabbitmq+mongodb", BY_ID, marks=pytest.mark.soak),
    ],
    indirect=["place"],
)
async def test_what_is_changed_takes_effect_at_once(sums: Queue, named: str) -> None:
    definition: dict[str, Any] = {"task_id": "cli.add", "every": 1, "kwargs": {"left": 1, "right": 2}}
    name: Any = "cli.add" if named == BY_ID else definition
    took: dict[str, float] = {}

    await asyncio.sleep(0.5)  # the scheduler has found nothing, and sleeps
    began, _ = await timed(sums.upsert_repeatable(**definition))
    job = await first_after(sums, began)
    took["make"] = job.created_at.timestamp() - began  # its first occurrence is a second after it was made

    _, paused = await timed(sums.pause_repeatable(name))
    await asyncio.sleep(1.5)
    assert await jobs_made_after(sums, paused) == [], "no occurrence after pause() has returned"

    began, _ = await timed(sums.resume_repeatable(name))
    job = await first_after(sums, began)
    took["resume"] = job.created_at.timestamp() - began  # until the next second of its grid

    began, updated = await timed(sums.update_repeatable(name, {"kwargs": {"left": 3, "right": 4}}))
    definition["kwargs"] = {"left": 3, "right": 4}
    job = await first_after(sums, updated)
    assert job.kwargs == {"left": 3, "right": 4}, "no occurrence of the old definition after update() has returned"

    began, _ = await timed(sums.reschedule_repeatable(name, every=3600))
    definition["every"] = 3600
    _, again = await timed(sums.reschedule_repeatable(name, cron="* * * * * *"))
    definition = {"task_id": "cli.add", "cron": "* * * * * *"}
    name = name if isinstance(name, str) else definition
    job = await first_after(sums, again)
    took["reschedule"] = job.created_at.timestamp() - again  # until the next second of the clock

    _, removed = await timed(sums.remove_repeatable(name))
    assert await sums.list_repeatables() == []
    await asyncio.sleep(1.5)
    assert await jobs_made_after(sums, removed) == [], "no occurrence after remove() has returned"

    print({change: f"its first job {seconds:.3f} s later" for change, seconds in took.items()})
    assert max(took.values()) < AT_ONCE
    jobs = await sums.get_jobs()
    assert len({job.id for job in jobs}) == len(jobs)
