"""What a scheduler tells its listeners, tasks that run when it shuts down, and tasks that move to another executor."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from callboard import ConfigurationError, InvalidJob, JobFailed
from callboard.runtime.scheduler import (
    ALL_EVENTS,
    ALL_TASKS_REMOVED,
    SCHEDULER_PAUSED,
    SCHEDULER_RESUMED,
    SCHEDULER_SHUTDOWN,
    SCHEDULER_START,
    TASK_ADDED,
    TASK_ERROR,
    TASK_EXECUTED,
    TASK_MAX_INSTANCES,
    TASK_MISSED,
    TASK_MODIFIED,
    TASK_REMOVED,
    TASK_SUBMITTED,
    AsyncScheduler,
    EventCode,
    Scheduler,
    SchedulerEvent,
    ShutdownTrigger,
    TaskEvent,
    TaskExecutionEvent,
    TaskSubmissionEvent,
    ThreadPoolExecutor,
)
from path.place import Place
from path.schedulers import SOON, scheduler_at, wait_until

pytestmark = pytest.mark.usefixtures("audited")

BOTH = pytest.mark.parametrize("place", ["memory", "rabbitmq+redis"], indirect=True)
LATER = datetime(2199, 1, 1, tzinfo=UTC)
AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Heard(list[SchedulerEvent]):
    def of(self, code: EventCode, task_id: str) -> list[Any]:
        return [
            event for event in self if event.code is code and isinstance(event, TaskEvent) and event.task_id == task_id
        ]

    def codes(self) -> list[EventCode]:
        return [event.code for event in self]


# --- listeners ---


@BOTH
def test_listeners_hear_what_became_of_tasks(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    scheduler = scheduler_at(place, grace_seconds=20)
    scheduler.add_listener(heard.append)

    def twice(number: int) -> int:
        return 2 * number

    def fail() -> None:
        raise ValueError("no such feed")

    scheduler.add_task(twice, "date", args=[21], id="twice")
    scheduler.add_task(fail, "date", id="fail")
    scheduler.add_task(twice, "date", run_at=AGO, args=[1], id="late", mistrigger_grace_time=5)
    with scheduler:
        wait_until(lambda: heard.of(TASK_EXECUTED, "twice") and heard.of(TASK_ERROR, "fail"))
        wait_until(lambda: heard.of(TASK_MISSED, "late"))
        job = scheduler.run_task("twice", remove_finished=False)
        wait_until(lambda: len(heard.of(TASK_EXECUTED, "twice")) == 2)
    place.errors.clear()  # the task that failed
    first, again = heard.of(TASK_EXECUTED, "twice")
    assert isinstance(first, TaskExecutionEvent)
    assert (first.return_value, first.exception, first.store) == (42, None, "default")
    assert (again.job_id, again.scheduled_run_time) == (job, None)
    submitted, by_hand = heard.of(TASK_SUBMITTED, "twice")
    assert isinstance(submitted, TaskSubmissionEvent)
    assert (submitted.source, by_hand.source) == ("scheduled", "manual")
    assert submitted.scheduled_run_times == (first.scheduled_run_time,)
    (failed,) = heard.of(TASK_ERROR, "fail")
    assert isinstance(failed.exception, JobFailed)
    assert (failed.exception.error_type, failed.exception.message) == ("ValueError", "no such feed")
    assert heard.of(TASK_MISSED, "late")[0].scheduled_run_time == AGO


def test_listeners_hear_of_surplus_runs() -> None:
    heard, release = Heard(), threading.Event()
    scheduler = Scheduler(grace_seconds=5, executors={"default": ThreadPoolExecutor(max_workers=2)})
    scheduler.add_listener(heard.append, TASK_MAX_INSTANCES | TASK_EXECUTED)
    scheduler.add_task(lambda: release.wait(SOON), "interval", seconds=1, id="slow")
    with scheduler:
        wait_until(lambda: heard.of(TASK_MAX_INSTANCES, "slow"))
        release.set()
        wait_until(lambda: heard.of(TASK_EXECUTED, "slow"))
    assert set(heard.codes()) == {TASK_MAX_INSTANCES, TASK_EXECUTED}


def test_listeners_hear_what_is_done_by_the_scheduler_and_each_what_its_mask_has() -> None:
    heard, starts, gone = Heard(), Heard(), Heard()
    scheduler = Scheduler(actors=(), grace_seconds=5)
    scheduler.add_listener(heard.append, ALL_EVENTS)
    scheduler.add_listener(starts.append, SCHEDULER_START | SCHEDULER_SHUTDOWN)
    scheduler.add_listener(gone.append)
    scheduler.remove_listener(gone.append)
    task = scheduler.add_task(print, "date", run_at=LATER, id="print")
    with scheduler:
        scheduler.pause()
        scheduler.resume()
        task.pause()
        task.resume()
        task.update(name="Print")
        task.reschedule("interval", hours=1)
        task.delete()
        scheduler.remove_all_tasks()
    assert heard.codes() == [
        TASK_ADDED, SCHEDULER_START, SCHEDULER_PAUSED, SCHEDULER_RESUMED, *[TASK_MODIFIED] * 4, TASK_REMOVED,
        ALL_TASKS_REMOVED, SCHEDULER_SHUTDOWN,
    ]  # fmt: skip
    assert starts.codes() == [SCHEDULER_START, SCHEDULER_SHUTDOWN]
    assert gone == []


def test_a_listener_that_fails_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    scheduler = Scheduler(actors=())

    def fail(event: SchedulerEvent) -> None:
        raise RuntimeError("a listener's own")

    scheduler.add_listener(fail, TASK_ADDED)
    scheduler.add_listener(heard.append)
    scheduler.add_task(print, "date", run_at=LATER)
    assert heard.codes() == [TASK_ADDED]
    assert "a listener failed at TASK_ADDED" in caplog.text


@BOTH
async def test_a_listener_that_comes_while_the_scheduler_runs_hears_what_comes_then(place: Place) -> None:
    heard = Heard()
    async with AsyncScheduler(
        stores={"default": place.store}, broker=place.broker, namespace=place.namespace, grace_seconds=5
    ) as scheduler:
        scheduler.add_listener(heard.append, TASK_EXECUTED)
        scheduler.add_task(lambda: "done", "interval", seconds=1, id="tick")
        async with asyncio.timeout(SOON):
            while not heard:
                await asyncio.sleep(0.01)
    assert heard[0].return_value == "done"  # type: ignore[attr-defined]


# --- at the end ---


@pytest.mark.parametrize("wait", [True, False])
@BOTH
def test_a_task_at_shutdown_runs_then_and_not_before_and_its_end_is_waited_for(place: Place, wait: bool) -> None:
    seen: list[str] = []
    scheduler = scheduler_at(place, grace_seconds=20)

    def tidy(what: str) -> None:
        time.sleep(0.2)
        seen.append(what)

    scheduler.add_task(tidy, "shutdown", args=["before the start"], id="tidy")
    scheduler.start()
    scheduler.add_task(tidy, ShutdownTrigger(), args=["while it ran"], executor="threadpool")
    scheduler.add_task(tidy, "shutdown", args=["never"], next_run_time=None)
    infos = scheduler.get_task_infos(trigger="shutdown", sort_by="id")
    assert [(info.schedule_state, info.executor, info.next_run_time) for info in infos] == [
        ("scheduled", "threadpool", None),
        ("paused", "default", None),
        ("scheduled", "default", None),
    ]
    assert scheduler.preview_task_runs("tidy").exhausted
    assert seen == []
    scheduler.shutdown(wait=wait)
    assert sorted(seen) == ["before the start", "while it ran"]


async def test_a_task_at_shutdown_runs_at_the_end_of_an_async_scope_too() -> None:
    seen: list[str] = []

    async def tidy() -> None:
        seen.append("tidied")

    async with AsyncScheduler(grace_seconds=5) as scheduler:
        scheduler.add_task(tidy, "shutdown")
    assert seen == ["tidied"]


def test_a_task_at_shutdown_is_paused_run_by_hand_and_deleted_as_others_are() -> None:
    seen: list[str] = []
    scheduler = Scheduler(grace_seconds=5)
    with scheduler:
        for id in ("kept", "paused", "deleted"):
            scheduler.add_task(seen.append, "shutdown", args=[id], id=id)
        scheduler.pause_task("paused")
        scheduler.delete_task("deleted")
        assert scheduler.update_task("kept", args=["changed"]) == {"args": (["kept"], ["changed"])}
        with pytest.raises(InvalidJob, match="delete it, and add another"):
            scheduler.reschedule_task("kept", trigger="interval", minutes=1)
        assert scheduler.run_task("kept").startswith("kept@manual-")
        wait_until(lambda: seen == ["changed"])
        assert scheduler.get_task("deleted") is None
    assert seen == ["changed", "changed"]
    assert scheduler.remove_all_tasks() == 2


def test_a_task_at_shutdown_that_fails_keeps_nothing_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    def tidy() -> None:
        raise OSError("disk full")

    scheduler = Scheduler(grace_seconds=5)
    scheduler.add_task(tidy, "shutdown")
    with scheduler:
        pass
    assert not scheduler.running
    assert "disk full" in caplog.text


def test_a_task_at_shutdown_that_cannot_become_a_job_is_told_and_keeps_nothing_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    scheduler = Scheduler(grace_seconds=5)
    seen: list[str] = []
    scheduler.add_task(print, "shutdown", args=[object()])
    scheduler.add_task(seen.append, "shutdown", args=["tidied"])
    scheduler.start()
    with pytest.raises(InvalidJob):
        scheduler.shutdown()
    assert seen == ["tidied"]
    assert ("callboard.stores.default", "closed") in [(one.name, one.message) for one in caplog.records]


@pytest.mark.parametrize("given", [{"seconds": 2}, {"next_run_time": LATER}])
def test_a_task_at_shutdown_has_no_other_time(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="shutdown"):
        Scheduler().add_task(print, "shutdown", **given)


# --- another executor ---


@BOTH
def test_a_task_moves_to_another_executor_and_goes_on_there(place: Place) -> None:
    threads: list[str] = []
    scheduler = scheduler_at(place, grace_seconds=20, executors={"wide": ThreadPoolExecutor(max_workers=4)})
    task = scheduler.add_task(lambda: threads.append("ran"), "interval", seconds=1, id="tick", max_instances=3)
    with scheduler:
        before = task.info
        assert scheduler.update_task("tick", dry_run=True, executor="wide") == {"executor": ("default", "wide")}
        assert task.info == before
        changed = scheduler.update_task("tick", executor="wide", name="Tick")
        assert changed == {"name": (None, "Tick"), "executor": ("default", "wide")}
        info = task.info
        assert info is not None
        assert before is not None
        assert (info.executor, info.name, info.max_instances) == ("wide", "Tick", 3)
        assert (info.schedule_state, info.trigger_description) == ("scheduled", before.trigger_description)
        del threads[:]
        wait_until(lambda: threads)
        assert [one.id for one in scheduler.get_task_infos()] == ["tick"]
        task.pause()
        assert scheduler.update_task("tick", executor="default")
        paused = task.info
        assert paused is not None
        assert (paused.executor, paused.schedule_state) == ("default", "paused")
        with pytest.raises(ConfigurationError, match="no executor 'nowhere'"):
            scheduler.update_task("tick", executor="nowhere")
        scheduler.remove_all_tasks()
