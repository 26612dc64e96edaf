"""The scheduler as a face on actors and store: where it runs, what it starts, what can be done with it meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from callboard import ConfigurationError, Context
from callboard.runtime.errors import UnknownSchedule
from callboard.runtime.scheduler import (
    AsyncScheduler,
    IntervalTrigger,
    ScheduleExists,
    Scheduler,
    ThreadPoolExecutor,
)
from path import process_tasks
from path.place import Place
from path.schedulers import SOON, scheduler_at, wait_until

pytestmark = pytest.mark.usefixtures("audited")

THREE = pytest.mark.parametrize("place", ["memory", "rabbitmq+redis", "rabbitmq+mongodb"], indirect=True)
LATER = datetime(2199, 1, 1, tzinfo=UTC)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(SOON):
        while not holds():
            await asyncio.sleep(0.01)


@THREE
def test_without_a_loop_it_runs_in_a_thread_with_its_own(place: Place) -> None:
    scheduler = scheduler_at(place)
    seen: list[str] = []

    @scheduler.add_task(trigger=IntervalTrigger(seconds=1), id="tick", kwargs={"greeting": "hello"})
    def tick(ctx: Context, greeting: str) -> None:
        assert greeting == "hello"
        seen.append(ctx.job_id)

    with scheduler:
        with scheduler:  # nested: the outermost starts and stops
            assert scheduler.running
        assert scheduler.running
        wait_until(lambda: len(seen) >= 2)
        assert not scheduler.start()
        assert not scheduler.shutdown()
        task = scheduler.get_task("tick")
        assert task is not None
        task.pause()
        info = scheduler.get_task_info("tick")
        assert info is not None
        assert info.paused
    assert not scheduler.running
    assert len(set(seen)) == len(seen)
    assert all(id.startswith("tick@20") for id in seen)


@THREE
async def test_in_a_loop_it_runs_there_and_its_methods_answer_at_once(place: Place) -> None:
    scheduler = scheduler_at(place)
    loops: list[asyncio.AbstractEventLoop] = []

    async def tick() -> None:
        loops.append(asyncio.get_running_loop())
        info = scheduler.get_task_info("tick")  # also from a task that runs in the scheduler's loop
        assert info is not None

    scheduler.add_task(tick, "interval", seconds=1, id="tick")
    async with scheduler, scheduler:
        await until(lambda: loops)
        assert loops[0] is asyncio.get_running_loop()
        definition = {"task_id": f"{tick.__module__}.{tick.__qualname__}", "every": 1}
        scheduler.pause_task(definition)
        assert [info.id for info in scheduler.get_task_infos(schedule_state="paused")] == ["tick"]
        next_run = scheduler.resume_task("tick")
        assert next_run is not None
        assert scheduler.update_task("tick", coalesce=False, dry_run=True)
        changed = scheduler.update_task("tick", name="Tick", max_instances=4)
        assert changed["name"] == (None, "Tick")
        scheduler.reschedule_task("tick", trigger="cron", day_of_week="mon", hour="1")
        assert len(scheduler.preview_task_runs("tick", 3).run_times) == 3
        before = scheduler.get_task_info("tick")
        ran = len(loops)
        job = scheduler.run_task(definition | {"every": None})
        await until(lambda: len(loops) > ran)
        assert job.startswith("tick@manual-")
        after = scheduler.get_task_info("tick")
        assert before is not None
        assert after is not None
        assert (after.next_run_time, after.name) == (before.next_run_time, "Tick")
        scheduler.delete_task("tick")
        with pytest.raises(UnknownSchedule):
            scheduler.pause_task("tick")
        scheduler.add_task(tick, "interval", hours=1, id="late")
        assert scheduler.remove_all_tasks() == 1
        from_a_thread = await asyncio.to_thread(scheduler.get_task_infos)
        assert from_a_thread == []


@pytest.mark.parametrize("place", ["memory", "rabbitmq+redis"], indirect=True)
async def test_start_and_shutdown_as_functions_within_a_loop(place: Place) -> None:
    scheduler = scheduler_at(place)
    seen: list[int] = []

    def tick() -> None:
        seen.append(1)

    scheduler.add_task(tick, "interval", seconds=1, id="tick")
    assert scheduler.start(paused=True)
    assert scheduler.paused
    assert [info.id for info in scheduler.get_task_infos()] == ["tick"]
    scheduler.add_task(tick, id="now")
    await asyncio.sleep(1.2)
    assert seen == []
    scheduler.resume()
    await until(lambda: len(seen) >= 3)
    scheduler.pause()
    await until(lambda: "callboard:repeatable-scheduler" not in {task.get_name() for task in asyncio.all_tasks()})
    before = scheduler.get_task_info("tick")
    await asyncio.sleep(1.2)
    assert scheduler.get_task_info("tick") == before
    assert scheduler.shutdown()
    await until(lambda: len(asyncio.all_tasks()) == 1)


@pytest.mark.parametrize("place", ["memory", "rabbitmq+redis"], indirect=True)
async def test_the_awaited_flavour_starts_and_ends_when_it_says_so(place: Place) -> None:
    scheduler = AsyncScheduler(
        stores={"default": place.store}, broker=place.broker, namespace=place.namespace, logger_name="awaited"
    )
    told: list[str] = []

    async def slow() -> None:
        told.append("began")
        await asyncio.sleep(0.5)
        told.append("ended")

    scheduler.add_task(slow, "date", run_at=LATER)
    assert await scheduler.start()
    assert not await scheduler.start()
    assert not await scheduler.shutdown()
    scheduler.add_task(slow, "date", id="now")
    await until(lambda: told)
    assert await scheduler.shutdown(wait=True)
    assert told == ["began", "ended"]
    assert len(asyncio.all_tasks()) == 1


def test_each_task_runs_by_the_executor_it_names(tmp_path: Path) -> None:
    scheduler = Scheduler(executors={"one": ThreadPoolExecutor(max_workers=1)}, grace_seconds=5)
    where: dict[str, tuple[int, str]] = {}

    def note(name: str) -> None:
        where[name] = (os.getpid(), threading.current_thread().name)

    async def on_a_loop(name: str) -> None:
        note(name)

    scheduler.add_task(on_a_loop, "date", args=["asyncio"])
    scheduler.add_task(note, "date", args=["default"])
    scheduler.add_task(note, "date", args=["pool"], executor="threadpool")
    scheduler.add_task(note, "date", args=["debug"], executor="debug")
    scheduler.add_task(note, "date", args=["named"], executor="one")
    scheduler.add_task(process_tasks.write_pid, "date", args=[str(tmp_path / "pid")], executor="processpool")
    with scheduler:
        wait_until(lambda: len(where) == 5 and (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        executors = {info.args[0]: info.executor for info in scheduler.get_task_infos(executor=None)}
    loop = where["asyncio"]
    assert loop[1] == "callboard.schedulers"
    assert where["debug"] == loop
    assert all(where[name][1].startswith("callboard-") for name in ("default", "pool", "named"))
    assert int((tmp_path / "pid").read_text()) != os.getpid()
    assert executors["named"] == "one"
    assert executors["pool"] == "threadpool"


@pytest.mark.parametrize("place", ["memory", "rabbitmq+mongodb"], indirect=True)
async def test_it_is_a_face_on_an_app_and_what_it_makes_are_schedules_of_queues(place: Place) -> None:
    async with place.open() as app:
        seen: list[str] = []

        @app.task(queue="emails", name="send")
        async def send(to: str) -> None:
            seen.append(to)

        scheduler = Scheduler(app)
        scheduler.add_task(send, "interval", hours=1, args=["a@b.c"], id="hourly")
        async with scheduler:
            assert await app.queue("emails").run_repeatable("hourly")
            scheduler.run_task("hourly")
            await until(lambda: seen == ["a@b.c"] * 2)
            await app.queue("emails").upsert_repeatable("send", every=60, args=["d@e.f"], id="other")
            assert [info.id for info in scheduler.get_task_infos(sort_by="id")] == ["hourly", "other"]
            with pytest.raises(ConfigurationError, match="leave out executor"):
                scheduler.add_task(send, "interval", hours=1, executor="threadpool")
        assert await app.queue("emails").count_repeatables() == 2
        scheduler.add_task(lambda: None, "interval", hours=1, id="own")
        for _ in range(2):  # the app keeps what was registered the first time
            async with scheduler:
                assert len(scheduler.get_tasks()) == 3


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_an_app_that_is_open_in_another_loop_is_refused(place: Place) -> None:
    app = place.app()

    async def main() -> None:
        async with app:
            with pytest.raises(ConfigurationError, match="another event loop"):
                await asyncio.to_thread(Scheduler(app).start)

    asyncio.run(main())


@pytest.mark.parametrize("place", ["rabbitmq+redis", "rabbitmq+mongodb"], indirect=True)
def test_a_restart_finds_its_schedules_and_another_definition_is_refused(place: Place) -> None:
    def report() -> None: ...

    def with_report(**options: Any) -> Scheduler:
        scheduler = scheduler_at(place, actors=())
        scheduler.add_task(report, "interval", id="report", **options)
        return scheduler

    with with_report(minutes=10) as scheduler:
        first = scheduler.get_task_info("report")
        scheduler.pause_task("report")
    with with_report(minutes=10) as scheduler:
        again = scheduler.get_task_info("report")
        assert first is not None
        assert again is not None
        assert again.paused
        assert scheduler.resume_task("report") == first.next_run_time
    with pytest.raises(ScheduleExists, match="'report'"):
        with_report(minutes=20).start()
    with with_report(minutes=20, replace_existing=True) as scheduler:
        changed = scheduler.get_task_info("report")
        assert changed is not None
        assert changed.trigger_description == "every 1200 s"


def test_a_task_added_as_paused_runs_from_its_resumption_on() -> None:
    seen: list[int] = []
    scheduler = Scheduler(grace_seconds=5)
    task = scheduler.add_task(lambda: seen.append(1), "interval", seconds=1, next_run_time=None)
    with scheduler:
        info = task.info
        assert info is not None
        assert info.paused
        assert task.resume() is None
        wait_until(lambda: seen)


def test_a_run_by_hand_of_a_finished_task_removes_it_unless_told_otherwise() -> None:
    seen: list[int] = []
    scheduler = Scheduler(grace_seconds=5)
    for id in ("gone", "kept"):
        scheduler.add_task(lambda: seen.append(1), "date", id=id)
    with scheduler:
        wait_until(lambda: len(seen) == 2)
        wait_until(lambda: len(scheduler.get_task_infos(schedule_state="finished")) == 2)
        scheduler.run_task("gone")
        scheduler.run_task("kept", remove_finished=False)
        wait_until(lambda: len(seen) == 4)
        assert [info.id for info in scheduler.get_task_infos()] == ["kept"]


def test_by_default_one_instance_runs_and_the_others_are_skipped_queued_or_cancel_it() -> None:
    scheduler = Scheduler(grace_seconds=0.1, executors={"default": ThreadPoolExecutor(max_workers=10)})
    running: dict[str, int] = dict.fromkeys(("skip", "queue", "cancel"), 0)
    most, release = dict(running), threading.Event()

    def work(ctx: Context, name: str) -> None:
        running[name] += 1
        most[name] = max(most[name], running[name])
        while not ctx.cancelled and not release.wait(0.01):
            pass
        running[name] -= 1

    for name in running:
        options = {} if name == "skip" else {"overlap": name}
        scheduler.add_task(work, "interval", seconds=1, args=[name], id=name, **options)
    with scheduler:
        wait_until(lambda: _totals(scheduler, "cancel").get("ran", 0) >= 3)
        wait_until(lambda: _totals(scheduler, "skip").get("skipped", 0) >= 1)
        wait_until(lambda: _totals(scheduler, "queue").get("skipped", 0) >= 1)  # one waits, the next is skipped
        assert _totals(scheduler, "skip")["ran"] == _totals(scheduler, "queue")["ran"] == 1
        release.set()
        wait_until(lambda: _totals(scheduler, "queue")["ran"] >= 2)
    assert (most["skip"], most["queue"]) == (1, 1)


def _totals(scheduler: Scheduler, id: str) -> dict[str, int]:
    info = scheduler.get_task_info(id)
    assert info is not None
    return info.totals


def test_a_task_that_fails_is_logged_by_its_executor_and_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler(grace_seconds=5)

    def fail() -> None:
        raise ValueError("no connection")

    scheduler.add_task(fail, "interval", seconds=1, id="fail", executor="pool")
    with caplog.at_level(logging.WARNING, "callboard"), scheduler:
        wait_until(lambda: caplog.text.count("ValueError: 'no connection'") >= 2)
    records = [record for record in caplog.records if "no connection" in record.getMessage()]
    assert {record.name for record in records} == {"callboard.executors.pool"}


def test_stores_of_several_aliases_keep_their_tasks_apart() -> None:
    seen: list[str] = []
    scheduler = Scheduler(stores={"other": "memory"}, grace_seconds=5)
    scheduler.add_task(lambda: seen.append("a"), "interval", seconds=1, id="tick")
    scheduler.add_task(lambda: seen.append("b"), "interval", seconds=1, id="tick", store="other", name="b")
    with scheduler:
        assert [info.store_alias for info in scheduler.get_task_infos(sort_by="store")] == ["default", "other"]
        wait_until(lambda: {"a", "b"} <= set(seen))
        scheduler.delete_task("tick", store="other")
        assert [info.store_alias for info in scheduler.get_task_infos()] == ["default"]
        with pytest.raises(ConfigurationError, match="'moon'"):
            scheduler.get_task_infos(store="moon")


def test_a_first_run_now_is_not_too_late_and_once_more_is_another_run() -> None:
    seen: list[str] = []
    scheduler = Scheduler(grace_seconds=5)
    now = datetime.now(UTC)
    scheduler.add_task(lambda: seen.append("early"), "interval", minutes=10, next_run_time=now, id="early")
    with scheduler:
        scheduler.add_task(lambda: seen.append("interval"), "interval", minutes=10, next_run_time=now, id="interval")
        scheduler.add_task(lambda: seen.append("cron"), "cron", hour=3, next_run_time=now, id="cron")

        def once() -> None:
            seen.append("once")

        scheduler.add_task(once, id="once", replace_existing=True)
        wait_until(lambda: {"early", "interval", "cron", "once"} <= set(seen))
        assert [info.id for info in scheduler.get_task_infos(trigger="cron")] == ["cron"]
        scheduler.add_task(once, id="once", replace_existing=True)
        wait_until(lambda: seen.count("once") == 2)
        scheduler.reschedule_task("interval", trigger="date", run_at=datetime.now(UTC))
        wait_until(lambda: seen.count("interval") == 2)
        info = scheduler.get_task_info("once")
        assert info is not None
        assert info.totals == {"ran": 2}
        paused = scheduler.add_task(lambda: seen.append("paused"), next_run_time=None, id="paused")
        paused.resume()
        wait_until(lambda: "paused" in seen)


async def test_an_isolated_scheduler_has_a_loop_of_its_own_also_where_one_runs() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def tick() -> None:
        loops.append(asyncio.get_running_loop())

    scheduler = Scheduler(isolated_event_loop=True, grace_seconds=5)
    scheduler.add_task(tick, "date", id="first")
    async with scheduler:
        await until(lambda: loops)
        assert loops[0] is not asyncio.get_running_loop()
        assert scheduler.get_task_info("first") is not None
    scheduler.start()
    scheduler.add_task(tick, "date", id="second")
    await until(lambda: len(loops) >= 3)  # the first again: what was in memory ended with it
    scheduler.shutdown()
    assert len(asyncio.all_tasks()) == 1


def test_scheduling_begins_after_the_startup_delay() -> None:
    runs: list[float] = []
    scheduler = Scheduler(startup_delay=1, grace_seconds=5)
    scheduler.add_task(lambda: runs.append(time.monotonic()), "date", id="now")
    began = time.monotonic()
    with scheduler:
        wait_until(lambda: runs)
    assert runs[0] - began >= 1


def test_a_task_may_add_and_change_tasks_while_the_scheduler_runs() -> None:
    scheduler = Scheduler(grace_seconds=5)
    seen: list[str] = []

    async def on_the_loop() -> None:
        scheduler.add_task(in_a_thread, "date", id="thread")
        scheduler.delete_task("loop")
        seen.append("loop")

    def in_a_thread() -> None:
        scheduler.add_task(lambda: seen.append("last"), "date", id="last")
        seen.append("thread")

    scheduler.add_task(on_the_loop, "interval", seconds=1, id="loop")
    with scheduler:
        wait_until(lambda: len(seen) >= 3)
        assert sorted(task.id or "" for task in scheduler.get_tasks()) == ["last", "thread"]
    assert sorted(seen) == ["last", "loop", "thread"]
