"""Schedules found, looked at and changed, by their ids and by the definitions that users of AsyncMQ write."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from callboard import AllOf, AnyOf, At, Callboard, ConfigurationError, Context, Cron, Every, InvalidJob, Policy, Queue
from callboard.runtime.errors import UnknownSchedule
from callboard.runtime.task_info import TaskScheduleState
from callboard.runtime.testing import running
from callboard.runtime.triggers import Daylight
from path.place import Place

SOON = 60.0
TWO = pytest.mark.parametrize("place", ["memory", "rabbitmq+redis"], indirect=True)


async def test_a_definition_names_its_schedule_whatever_its_members_are(app: Callboard) -> None:
    queue = app.queue("reports")
    definitions: list[dict[str, Any]] = [
        {"task_id": "a", "every": 900, "kwargs": {"tenant": "acme", "days": (1, 2)}, "retries": 3},
        {"task_id": "b", "every": timedelta(minutes=15), "jitter": 5, "args": (1, [2])},
        {"task_id": "c", "cron": "0 7 * * 1", "timezone": "Europe/Berlin", "start": datetime(2026, 1, 1, tzinfo=UTC)},
        {"task_id": "d", "trigger": Cron(day="last", hour=18), "policy": Policy.create(max_instances=1), "ttl": 60},
        {"task_id": "e", "every": 1500.5, "ttl": None, "kwargs": None},
    ]
    for definition in definitions:
        await queue.upsert_repeatable(**definition)
    for definition in definitions:
        await queue.pause_repeatable(definition)
        info = await queue.get_repeatable(definition)
        assert (info.id, info.paused) == (definition["task_id"], True)
        assert await queue.resume_repeatable(definition) == info.next_run
        assert await queue.update_repeatable(definition, {"priority": 2}) == {"priority": (5, 2)}
        assert await queue.remove_repeatable(definition)
    assert await queue.count_repeatables() == 0


async def test_a_schedule_gets_another_trigger_as_a_whole(app: Callboard) -> None:
    queue = app.queue("reports")
    await queue.upsert_repeatable("report", every=900, start=datetime(2026, 1, 1, tzinfo=UTC), args=(1,))
    next_run = await queue.reschedule_repeatable("report", cron="0 9 * * *", timezone="Europe/Berlin")
    info = await queue.get_repeatable("report")
    assert info.next_run == next_run
    assert (info.job_def["cron"], info.job_def["args"], "start" in info.job_def) == ("0 9 * * *", [1], False)
    with pytest.raises(UnknownSchedule):
        await queue.reschedule_repeatable("nothing", every=60)


@TWO
async def test_an_update_of_a_part_of_a_trigger_keeps_its_other_parts(app: Callboard) -> None:
    queue = app.queue("reports")
    night = Daylight.create(missing="skip", repeated="both")
    await queue.upsert_repeatable("a", trigger=Cron("30 2 * * *", zone="Europe/Berlin", daylight=night, jitter=5))
    await queue.update_repeatable("a", {"cron": "45 2 * * *"})
    await queue.upsert_repeatable("b", trigger=Cron("45 2 * * *", zone="Europe/Berlin", daylight=night, jitter=5))
    await queue.upsert_repeatable("c", trigger=Cron(day="last", hour=18))
    await queue.update_repeatable("c", {"timezone": "Asia/Tokyo", "jitter": 60})
    await queue.upsert_repeatable("d", trigger=Cron(day="last", hour=18, zone="Asia/Tokyo", jitter=60))
    await queue.upsert_repeatable("e", trigger=AnyOf(Every(60), Cron("0 0 * * *")))
    await queue.update_repeatable("e", {"end": datetime(2199, 1, 1, tzinfo=UTC)})
    a, b, c, d, e = [read.given for read in await _reads(app)]
    assert (a, c) == (b, d)
    assert e == AnyOf(Every(60), Cron("0 0 * * *"), end=datetime(2199, 1, 1, tzinfo=UTC))
    await queue.upsert_repeatable("f", trigger=At(datetime(2199, 1, 1, tzinfo=UTC)))
    with pytest.raises(InvalidJob, match="occurs once"):
        await queue.update_repeatable("f", {"jitter": 5})
    with pytest.raises(InvalidJob, match="only cron has one"):
        await queue.update_repeatable("e", {"timezone": "UTC"})


async def _reads(app: Callboard) -> list[Any]:
    from callboard.metadata.schedules import Schedules
    from callboard.runtime.repeatable_info import read_all

    return await read_all(app.connections.store.get(Schedules), "reports")


@TWO
async def test_an_update_takes_members_of_the_policy_and_tells_what_becomes_of_it(app: Callboard) -> None:
    queue = app.queue("reports")
    await queue.upsert_repeatable("report", every=900, policy=Policy.create(misfire_grace=30))
    changed = await queue.update_repeatable("report", {"max_instances": 2, "overlap": "queue", "name": "Report"})
    assert changed == {"max_instances": (None, 2), "overlap": ("skip", "queue"), "name": (None, "Report")}
    assert (await queue.get_repeatable("report")).policy["misfire_grace"] == 30
    with pytest.raises(ValueError, match="max_instances=0"):
        await queue.update_repeatable("report", {"max_instances": 0})


@TWO
async def test_snapshots_are_filtered_and_sorted(app: Callboard) -> None:
    queue = app.queue("reports")
    await queue.upsert_repeatable("shop.rebuild", every=900, id="b", kwargs={"tenant": "acme"})
    await queue.upsert_repeatable("shop.clean", cron="0 4 * * *", timezone="Europe/Berlin", id="a")
    over = At(datetime(2020, 1, 1, tzinfo=UTC))
    await queue.upsert_repeatable("shop.once", trigger=AllOf(over, over), id="c")
    await queue.pause_repeatable("b")

    async def ids(**filters: Any) -> list[str]:
        return [info.id for info in await queue.get_task_infos(**filters)]

    assert await ids(sort_by="id") == ["a", "b", "c"]
    assert await ids(sort_by="id", descending=True) == ["c", "b", "a"]
    assert (await ids())[0] == "a"  # those that have no next run are last
    assert await ids(schedule_state="paused") == ["b"]
    assert await ids(schedule_state="scheduled") == ["a"]
    assert await ids(schedule_state="finished") == ["c"]
    assert await ids(trigger="interval") == await ids(trigger="Every") == ["b"]
    assert await ids(q="BERLIN") == ["a"]
    assert await ids(q="rebuild", schedule_state="scheduled") == []
    assert await ids(sort_by="trigger") == ["c", "a", "b"]
    for bad in ({"schedule_state": "asleep"}, {"sort_by": "colour"}):
        with pytest.raises(ValueError, match=r"asleep.*pending|colour.*next_run_time"):
            await ids(**bad)

    info = await queue.get_task_info({"task_id": "shop.rebuild", "every": 900})
    assert info is not None
    assert (info.schedule_state, info.paused, info.next_run_time) == (TaskScheduleState.PAUSED, True, None)
    assert (info.name, info.callable_name, info.kwargs) == ("shop.rebuild", "rebuild", {"tenant": "acme"})
    assert await queue.get_task_info("nothing") is None


@TWO
async def test_a_local_schedule_makes_jobs_while_a_worker_runs_and_is_stored_nowhere(place: Place) -> None:
    async with place.open() as app:
        seen: list[tuple[str, dict[str, Any]]] = []

        @app.task(queue="ticks", name="tick")
        async def tick(ctx: Context, who: str) -> None:
            seen.append((who, ctx.meta["schedule"]))

        queue = app.queue("ticks")
        queue.add_repeatable("tick", every=0.05, kwargs={"who": "a"}, id="a", meta={"by": "me"})
        queue.add_repeatable("tick", every=0.05, args=["b"], id="b")
        with pytest.raises(InvalidJob, match="'a' already"):
            queue.add_repeatable("tick", every=1, args=["c"], id="a")
        async with running(app, actors=["delayed-scanner"]):
            await asyncio.sleep(0.2)
        assert await queue.get_jobs() == []

        async with running(app, actors=["worker"]), running(app, actors=["worker"]):
            async with asyncio.timeout(SOON):
                while {who for who, _ in seen} != {"a", "b"}:
                    await asyncio.sleep(0.01)
            assert queue.remove_local_repeatable("a")
            queue.add_repeatable("tick", every=0.05, args=["late"], id="late")
            async with asyncio.timeout(SOON):
                while "late" not in {who for who, _ in seen}:
                    await asyncio.sleep(0.01)
        assert await queue.list_repeatables() == []
        moments = [origin["occurrence"] for who, origin in seen if who == "b"]
        assert len(set(moments)) == len(moments), "two workers in one process fire once"
        assert {origin["local"] for _, origin in seen} == {True}


@TWO
async def test_a_queue_is_worked_where_it_is_made(place: Place) -> None:
    app, seen = place.app(), list[str]()

    @app.task(queue="maintenance", name="note")
    async def note(what: str) -> None:
        seen.append(what)

    queue = Queue("maintenance", app, concurrency=4)
    queue.add_repeatable("note", every=0.1, args=["local"])
    working = asyncio.create_task(queue.run(grace_seconds=5))
    async with app:
        await queue.upsert_repeatable("note", cron="* * * * * *", args=["durable"])
        async with asyncio.timeout(SOON):
            while set(seen) != {"local", "durable"}:
                await asyncio.sleep(0.01)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        await place.audit(app)


def test_a_queue_with_settings_that_contradict_is_refused() -> None:
    assert Queue("maintenance", scan_interval=2.0).app.settings.scan_interval == 2.0
    with pytest.raises(ConfigurationError, match="setting of the app"):
        Queue("maintenance", Callboard(), scan_interval=2.0)
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        Queue("maintenance", concurrency=0)
