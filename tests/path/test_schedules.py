"""Schedules, from the app's code to their jobs' ends."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from callboard import Callboard, ConfigurationError, Context, InvalidJob, Queue
from callboard.metadata.job import State
from callboard.runtime.errors import UnknownSchedule
from callboard.runtime.testing import running
from callboard.runtime.triggers import At, Policy
from path.place import Place

ACTORS = ("worker", "repeatable-scheduler")
SECONDS = 60.0
AT_ONCE = 6.0  # under load; a scheduler that was not woken would sleep for 12 s


async def until(holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def until_totals(queue: Queue, id: str, **wanted: int) -> None:
    """Until so many occurrences, or more, met these fates."""
    async with asyncio.timeout(SECONDS):
        while True:
            totals = (await queue.get_repeatable(id)).totals
            if all(totals.get(fate, 0) >= count for fate, count in wanted.items()):
                return
            await asyncio.sleep(0.02)


async def test_each_occurrence_runs_once_on_its_grid(place: Place) -> None:
    async with place.open() as app:
        seen: list[Context] = []

        @app.every(1, queue="ticks", id="tick", kwargs={"greeting": "hello"})
        async def tick(ctx: Context, greeting: str) -> None:
            assert greeting == "hello"
            seen.append(ctx)

        async with running(app, actors=ACTORS), running(app, actors=ACTORS):
            await until(lambda: len(seen) >= 3)
            (info,) = await app.queue("ticks").list_repeatables()
        moments = [datetime.fromisoformat(ctx.meta["schedule"]["occurrence"]) for ctx in seen]
        assert [later - first for first, later in itertools.pairwise(moments)] == [timedelta(seconds=1)] * (
            len(moments) - 1
        )
        assert len({ctx.job_id for ctx in seen}) == len(seen)
        assert seen[0].job_id.startswith("tick@20")
        assert info.totals["ran"] >= 3
        assert {happening["fate"] for happening in info.history} == {"ran"}


async def test_no_job_starts_before_its_occurrence_and_late_ones_by_little(place: Place) -> None:
    async with place.open() as app:
        late: list[float] = []

        @app.cron("* * * * * *", queue="ticks")
        async def tick(ctx: Context) -> None:
            late.append(time.time() - datetime.fromisoformat(ctx.meta["schedule"]["occurrence"]).timestamp())

        async with running(app, actors=ACTORS):
            await until(lambda: len(late) >= 3)
        assert min(late) >= 0
        assert sorted(late)[len(late) // 2] < AT_ONCE


async def test_a_repeated_declaration_keeps_the_next_run_and_a_new_trigger_moves_it(app: Callboard) -> None:
    queue = app.queue("reports")
    first = await queue.upsert_repeatable("report", every=900, id="nightly")
    assert first is not None
    assert await queue.upsert_repeatable("report", every=900, id="nightly") == first
    assert await queue.upsert_repeatable("report", every=900, id="nightly", kwargs={"tenant": "acme"}) == first
    moved = await queue.upsert_repeatable("report", every=60, id="nightly")
    assert moved is not None
    assert 59 < moved - time.time() <= 60.1
    (info,) = await queue.list_repeatables()
    assert (info.revision, info.job_def["every"]) == (3, 60)


async def test_a_schedule_is_named_by_its_id_or_by_its_definition(app: Callboard) -> None:
    queue = app.queue("reports")
    definition = {"task_id": "report", "every": 900, "kwargs": {"tenant": "acme"}}
    next_run = await queue.upsert_repeatable("report", every=900, kwargs={"tenant": "acme"})
    await queue.upsert_repeatable("report", every=900, id="other", kwargs={"tenant": "umbrella"})
    await queue.pause_repeatable(definition)
    assert [info.paused for info in await queue.list_repeatables()] == [False, True]
    assert await queue.resume_repeatable(definition) == next_run
    assert await queue.resume_repeatable("report") == next_run
    (_, listed) = await queue.list_repeatables()
    assert (await queue.get_repeatable(listed.job_def)).id == "report"
    assert await queue.remove_repeatable(definition)
    assert not await queue.remove_repeatable(definition)
    assert await queue.count_repeatables() == 1


async def test_a_definition_that_fits_none_or_several_is_refused(app: Callboard) -> None:
    queue = app.queue("reports")
    await queue.upsert_repeatable("report", every=900, id="a")
    await queue.upsert_repeatable("report", every=900, id="b")
    with pytest.raises(InvalidJob, match="several"):
        await queue.pause_repeatable({"task_id": "report", "every": 900})
    with pytest.raises(UnknownSchedule):
        await queue.pause_repeatable({"task_id": "report", "every": 60})
    with pytest.raises(UnknownSchedule):
        await queue.resume_repeatable("c")
    with pytest.raises(InvalidJob, match="one of every"):
        await queue.upsert_repeatable("report", every=60, cron="* * * * *")


async def test_a_pause_a_resume_and_a_removal_are_seen_at_once(place: Place) -> None:
    async with place.open() as app:

        @app.every(1, queue="ticks", id="tick")
        async def tick() -> None: ...

        queue = app.queue("ticks")

        async def made_after(moment: float) -> int:
            return sum(job.created_at.timestamp() > moment for job in await queue.get_jobs())

        async with running(app, actors=ACTORS):
            await until_totals(queue, "tick", ran=1)
            await queue.pause_repeatable("tick")
            paused = time.time()
            await asyncio.sleep(1.3)
            assert await made_after(paused) == 0
            before = (await queue.get_repeatable("tick")).totals["ran"]
            next_run = await queue.resume_repeatable("tick")
            assert next_run is not None
            assert next_run - time.time() <= 1
            await until_totals(queue, "tick", ran=before + 1)
            await queue.remove_repeatable("tick")
            removed = time.time()
            await asyncio.sleep(1.3)
            assert await made_after(removed) == 0


async def test_a_sleeping_scheduler_wakes_for_a_new_schedule(place: Place) -> None:
    async with place.open() as app:
        seen: list[float] = []

        @app.task(queue="ticks", name="tick")
        async def tick() -> None:
            seen.append(time.time())

        async with running(app, actors=ACTORS):
            await asyncio.sleep(0.3)
            moment = datetime.now(UTC) + timedelta(seconds=0.5)
            await app.queue("ticks").upsert_repeatable("tick", trigger=At(moment))
            await until(lambda: bool(seen))
            (info,) = await app.queue("ticks").list_repeatables()
        assert 0 <= seen[0] - moment.timestamp() < AT_ONCE
        assert info.next_run is None


async def test_a_run_by_hand_is_marked_and_leaves_the_cadence_alone(app: Callboard) -> None:
    queue = app.queue("reports")
    next_run = await queue.upsert_repeatable("report", every=900, priority=2, ttl=60, retries=3, meta={"by": "me"})
    await queue.pause_repeatable("report")
    job = await queue.get_job(await queue.run_repeatable("report"))
    assert job is not None
    assert (job.state, job.priority) == (State.WAITING, 2)
    assert job.meta["by"] == "me"
    assert job.meta["schedule"]["manual"] is True
    info = await queue.get_repeatable("report")
    assert (info.next_run, info.paused, info.totals) == (next_run, True, {})


async def test_a_preview_shows_what_comes(app: Callboard) -> None:
    queue = app.queue("reports")
    await queue.upsert_repeatable("report", cron="0 9 * * mon", timezone="Europe/Berlin")
    moments = await queue.preview_repeatable("report", 3)
    assert [(later - first).days for first, later in itertools.pairwise(moments)] == [7, 7]


async def test_a_new_run_waits_is_skipped_or_cancels_the_old_one_as_the_policy_says(place: Place) -> None:
    async with place.open() as app:
        release, most = asyncio.Event(), dict.fromkeys(("skip", "queue", "cancel"), 0)
        runs = dict(most)
        for overlap in most:
            policy = Policy.create(max_instances=1, overlap=overlap)

            @app.every(1, queue="ticks", name=overlap, policy=policy, kwargs={"overlap": overlap})
            async def slow(overlap: str) -> None:
                runs[overlap] += 1
                most[overlap] = max(most[overlap], runs[overlap])
                try:
                    await release.wait()
                finally:
                    runs[overlap] -= 1

        queue = app.queue("ticks")
        async with running(app, actors=ACTORS):
            await until_totals(queue, "skip", ran=1, skipped=2)
            await until_totals(queue, "queue", ran=1, skipped=1)  # one waits, the next is skipped
            await until_totals(queue, "cancel", ran=3)
            for overlap in ("skip", "queue"):
                assert (await queue.get_repeatable(overlap)).totals["ran"] == 1
            async with asyncio.timeout(60):
                while sum(job.task == "cancel" for job in await queue.get_jobs(State.CANCELLED)) < 2:
                    await asyncio.sleep(0.05)
            release.set()
            await until_totals(queue, "queue", ran=2)
        assert (most["skip"], most["queue"]) == (1, 1)
        assert (await queue.get_repeatable("cancel")).totals.keys() == {"ran"}


async def test_two_schedules_of_one_id_are_refused(app: Callboard) -> None:
    @app.cron("* * * * *", queue="ticks", id="tick")
    async def first() -> None: ...

    with pytest.raises(ConfigurationError, match="'tick'"):

        @app.cron("* * * * *", queue="ticks", id="tick")
        async def second() -> None: ...


async def test_an_obliterated_queue_has_no_schedules(app: Callboard) -> None:
    queue = app.queue("reports")
    await queue.upsert_repeatable("report", every=900)
    await queue.obliterate()
    assert await queue.list_repeatables() == []


async def test_an_update_changes_what_it_names_and_tells_the_difference(app: Callboard) -> None:
    queue = app.queue("reports")
    next_run = await queue.upsert_repeatable(
        "report", cron="0 9 * * *", timezone="Europe/Berlin", args=(1,), retries=3, backoff=5, ttl=60, priority=2
    )
    before = await queue.get_repeatable("report")
    planned = await queue.update_repeatable("report", {"args": [2], "priority": 4}, dry_run=True)
    assert planned == {"args": ([1], [2]), "priority": (2, 4)}
    assert await queue.get_repeatable("report") == before

    assert await queue.update_repeatable("report", {"args": [2], "priority": 4}) == planned
    after = await queue.get_repeatable("report")
    assert after.job_def == {**before.job_def, "args": [2], "priority": 4}
    assert (after.next_run, after.revision) == (next_run, 2)
    assert await queue.update_repeatable("report", {"priority": 4}) == {}

    moved = await queue.update_repeatable({"task_id": "report", "args": [2]}, {"cron": "0 10 * * *"})
    assert moved == {"cron": ("0 9 * * *", "0 10 * * *")}
    assert (await queue.get_repeatable("report")).job_def["timezone"] == "Europe/Berlin"
    with pytest.raises(InvalidJob, match="'colour'"):
        await queue.update_repeatable("report", {"colour": "red"})
    with pytest.raises(UnknownSchedule):
        await queue.update_repeatable("nothing", {"priority": 4})


async def test_a_moment_that_is_now_or_past_is_due_also_in_another_schedules_place(app: Callboard) -> None:
    queue, soon = app.queue("reports"), time.time()
    assert await queue.upsert_repeatable("report", trigger=At(datetime.now(UTC)), id="new") is not None
    await queue.upsert_repeatable("report", every=900)
    due = await queue.upsert_repeatable("report", trigger=At(datetime.now(UTC)))
    assert due is not None
    assert soon - 1 < due <= time.time()
    await queue.upsert_repeatable("report", every=900)
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    assert await queue.reschedule_repeatable("report", trigger=At(moment)) == moment.timestamp()


async def test_of_many_updates_at_once_none_is_lost(app: Callboard) -> None:
    queue = app.queue("reports")
    await queue.upsert_repeatable("report", every=900)
    changes: list[dict[str, object]] = [
        {"priority": 9},
        {"retries": 7},
        {"args": [1]},
        {"kwargs": {"a": 1}},
        {"ttl": 9},
    ]
    await asyncio.gather(*(queue.update_repeatable("report", change) for change in changes))
    job_def = (await queue.get_repeatable("report")).job_def
    wanted = {"priority": 9, "retries": 7, "args": [1], "kwargs": {"a": 1}, "ttl": 9}
    assert {name: job_def[name] for name in wanted} == wanted


async def test_what_a_downtime_left_over_becomes_one_job_or_is_missed_as_the_policy_says_and_is_recorded(
    place: Place,
) -> None:
    async with place.open() as app:
        queue = app.queue("ticks")
        strict = Policy.create(misfire_grace=1, coalesce=False)
        await queue.upsert_repeatable("tick", every=1, id="latest")
        await queue.upsert_repeatable("tick", every=1, id="strict", policy=strict)
        await queue.upsert_repeatable("tick", every=1, id="each", policy=Policy.create(coalesce=False, catch_up=2))
        await asyncio.sleep(4.2)  # four occurrences of each, and no scheduler
        async with running(app, actors=("repeatable-scheduler",)):
            await until_totals(queue, "latest", ran=1, coalesced=3)
            await until_totals(queue, "strict", missed=2)
            await until_totals(queue, "each", ran=2, missed=2)
        jobs = await queue.get_jobs(["waiting"])
        for info in await queue.list_repeatables():
            made = [job for job in jobs if job.id.startswith(f"{info.id}@")]
            assert len({job.id for job in made}) == len(made) == info.totals.get("ran", 0), info.totals
            assert info.history
            assert {happening["fate"] for happening in info.history} <= set(info.totals)
        await queue.obliterate()
