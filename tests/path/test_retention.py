"""How long final jobs stay, by the real Retention actor."""

from __future__ import annotations

import asyncio
from statistics import median

import pytest

from callboard import Callboard, JobFailed, Retain
from callboard.runtime.testing import running, settled
from path.place import Place
from redis_space import RedisSpace


async def fill(app: Callboard, queue: str, task: str, number: int) -> None:
    await app.queue(queue).add_bulk([{"task_id": task, "args": [i]} for i in range(number)])


async def numbers(app: Callboard, queue: str, state: str) -> list[int]:
    return sorted(job.args[0] for job in await app.queue(queue).list_jobs(state))


async def are_newest(app: Callboard, queue: str, state: str, *, of: int) -> bool:
    """Whether nothing that ended later was dropped. What ended in the same millisecond as the oldest of them, as ends
    that are recorded together do, may be."""
    kept = await app.queue(queue).list_jobs(state)
    oldest = min(job.finished_at for job in kept)
    newer = sorted(job.args[0] for job in kept if job.finished_at > oldest)
    return newer == list(range(of - len(newer), of))


async def until_kept(app: Callboard, queue: str, **wanted: int) -> None:
    """Wait until retention has left that many: an age of up to 12 s, and its next round up to 5 s later. One more of
    that actor, whose first round is at once: not every store forgets with the end of a job."""
    async with running(app, actors=["retention"]), asyncio.timeout(60):
        while (counts := await app.queue(queue).get_job_counts(*wanted)) != wanted:
            assert all(counts[state] >= wanted[state] for state in wanted), counts
            await asyncio.sleep(0.05)


def note_and_break(app: Callboard) -> None:
    @app.task(name="note")
    async def note(i: int) -> None: ...

    @app.task(name="broken")
    async def broken(i: int) -> None:
        raise ValueError


async def test_the_settings_keep_the_newest_of_each_outcome(place: Place) -> None:
    async with place.open(keep_completed_count=10, keep_failed_count=5) as app:
        note_and_break(app)
        async with running(app, concurrency=1):
            await fill(app, "default", "note", 40)
            await fill(app, "default", "broken", 30)
            await settled(app, "default", timeout=90)
            await until_kept(app, "default", completed=10, failed=5)
        assert await are_newest(app, "default", "completed", of=40)
        assert await are_newest(app, "default", "failed", of=30)


async def test_what_a_queue_keeps_counts_before_the_settings(place: Place) -> None:
    async with place.open(keep_completed_count=10) as app:
        note_and_break(app)
        app.retain("important", keep_completed=Retain(count=20), keep_failed=Retain(count=0))
        async with running(app, queues=["default", "important"], concurrency=1):
            for queue in ("default", "important"):
                await fill(app, queue, "note", 40)
            await fill(app, "important", "broken", 5)
            await settled(app, "default", "important", timeout=90)
            await until_kept(app, "default", completed=10)
            await until_kept(app, "important", completed=20, failed=0)
        assert await are_newest(app, "important", "completed", of=40)


async def test_what_a_task_keeps_counts_before_its_queue_and_only_for_its_own_jobs(place: Place) -> None:
    async with place.open(keep_completed_count=10) as app:
        note_and_break(app)

        @app.task(name="audited", keep_completed=Retain(count=25), keep_failed=Retain())
        async def audited(i: int) -> None: ...

        async with running(app, concurrency=1):
            await fill(app, "default", "audited", 30)
            await fill(app, "default", "note", 30)
            await settled(app, "default", timeout=90)
            await until_kept(app, "default", completed=35)
        kept = [job.task for job in await app.queue("default").get_completed()]
        assert (kept.count("audited"), kept.count("note")) == (25, 10)


async def test_jobs_are_forgotten_when_their_age_is_over_and_not_before(place: Place) -> None:
    async with place.open(keep_completed_seconds=1.0) as app:
        note_and_break(app)
        async with running(app):
            await fill(app, "default", "note", 200)
            await fill(app, "default", "broken", 5)
            await settled(app, "default", timeout=90)
            assert await app.queue("default").get_job_counts("completed") == {"completed": 200}
            await asyncio.sleep(1.2)  # their age
            await until_kept(app, "default", completed=0)
        assert await app.queue("default").get_job_counts("failed") == {"failed": 5}


async def test_jobs_that_are_not_kept_at_all_leave_no_record(place: Place) -> None:
    async with place.open() as app:

        @app.task(name="forgotten", keep_completed=Retain(count=0))
        async def forgotten() -> None: ...

        async with running(app):
            job = await forgotten.enqueue()
            await settled(app, "default", timeout=90)
            await until_kept(app, "default", completed=0)
        assert await app.queue("default").get_job(job.id) is None


async def test_cancelled_and_expired_jobs_are_kept_like_failed_ones(place: Place) -> None:
    async with place.open(keep_failed_count=3) as app:
        note_and_break(app)
        queue = app.queue("default")
        for job_id in await queue.add_bulk([{"task_id": "note", "args": [i], "delay": 60} for i in range(10)]):
            await queue.cancel_job(job_id)
        await queue.add_bulk([{"task_id": "note", "args": [i], "ttl": 0.001} for i in range(10)])
        await asyncio.sleep(0.01)
        async with running(app):
            await settled(app, "default", timeout=90)
            await until_kept(app, "default", cancelled=3, expired=3)


async def test_a_job_that_was_retried_by_hand_is_kept_by_its_new_end(place: Place) -> None:
    async with place.open(keep_failed_count=2) as app:
        note_and_break(app)
        queue = app.queue("default")
        async with running(app, concurrency=1):
            for i in range(2):
                job = queue.handle(await queue.add("broken", [i], job_id=f"f{i}"))
                with pytest.raises(JobFailed):
                    await job.result(5)
            await queue.retry_job("f0")
            await settled(app, "default", timeout=90)
            await queue.add("broken", [2], job_id="f2")
            await settled(app, "default", timeout=90)
            await until_kept(app, "default", failed=2)
        assert await numbers(app, "default", "failed") == [0, 2]


@pytest.mark.parametrize("place", ["rabbitmq+redis"], indirect=True)
@pytest.mark.parametrize("number", [10_000, pytest.param(100_000, marks=pytest.mark.soak)])
async def test_many_jobs_leave_a_thousand_records_and_after_their_age_no_key(place: Place, number: int) -> None:
    kept, bookkeeping = 1000, 12
    space = RedisSpace(place.store)
    space.namespace = place.namespace
    async with place.open(
        keep_completed_count=kept, keep_completed_seconds=12, adoption_window_seconds=1, lease_seconds=60
    ) as app:

        @app.task(name="note")
        async def note(i: int) -> None: ...

        async with running(app, concurrency=200):
            for start in range(0, number, 10_000):
                await app.queue("default").add_bulk(
                    [{"task_id": "note", "args": [i]} for i in range(start, start + 10_000)]
                )
            await settled(app, "default", timeout=150)
            await until_kept(app, "default", completed=kept)
            # The newest by their end: a job that was handed back ends later than it was made.
            assert median(await numbers(app, "default", "completed")) > number / 2
            async with asyncio.timeout(60):
                while len(await space.queue_keys()) > kept + bookkeeping:  # tombstones are dropped a second later
                    await asyncio.sleep(0.1)
            assert (await app.queue("default").queue_counts()).completed > 0
            await until_kept(app, "default", completed=0)
            async with asyncio.timeout(60):
                while len(await space.queue_keys()) > bookkeeping:
                    await asyncio.sleep(0.1)
