"""What a scheduler is told by dictionaries and aliases, and what it does with tasks before it is started."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from callboard import AllOf, AnyOf, At, Callboard, ConfigurationError, Cron, Every, InvalidJob
from callboard.runtime.scheduler import (
    AndTrigger,
    AsyncIOExecutor,
    CronTrigger,
    DateTrigger,
    DebugExecutor,
    IntervalTrigger,
    Loggers,
    MongoDBStore,
    OrTrigger,
    RedisStore,
    ScheduledTask,
    ScheduleExists,
    Scheduler,
    SchedulerNotRunning,
    TaskSubmitted,
    ThreadPoolExecutor,
)
from callboard.runtime.scheduler.configuration import configure
from callboard.runtime.triggers import TriggerInvalid
from callboard.runtime.triggers.aliases import trigger_of, zone_name

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


def work() -> None: ...


def test_the_documents_configuration_is_understood() -> None:
    made = configure(
        global_config={
            "asyncz.lock_path": "/tmp/project_{store}_store.pid",
            "asyncz.startup_delay": 2,
            "asyncz.stores.mongo": {"type": "mongodb"},
            "asyncz.stores.default": {"type": "redis", "database": "0"},
            "asyncz.executors.pool": {"max_workers": "20", "class": "asyncz.executors.pool:ThreadPoolExecutor"},
            "asyncz.executors.default": {"class": "asyncz.executors.asyncio:AsyncIOExecutor"},
            "asyncz.task_defaults.coalesce": "false",
            "asyncz.task_defaults.max_instances": "3",
            "asyncz.task_defaults.timezone": "Europe/Berlin",
        }
    )
    assert made.stores == {"mongo": MongoDBStore(), "default": RedisStore(database=0)}
    assert made.executors["pool"] == ThreadPoolExecutor(max_workers=20)
    assert made.executors["default"] == AsyncIOExecutor()
    assert made.executors["debug"] == DebugExecutor()
    assert (made.defaults.coalesce, made.defaults.max_instances, made.zone) == (False, 3, "Europe/Berlin")
    assert made.startup_delay == 2


def test_what_is_given_by_name_goes_before_the_dictionary() -> None:
    made = configure(
        global_config={"callboard.task_defaults": {"max_instances": 3}, "timezone": "UTC"},
        task_defaults={"max_instances": None, "misfire_grace_time": "30"},
        timezone=ZoneInfo("Asia/Tokyo"),
        executors={"default": "debug", "slow": {"type": "processpool", "max_workers": 4}},
    )
    assert (made.defaults.max_instances, made.defaults.mistrigger_grace_time, made.zone) == (None, 30, "Asia/Tokyo")
    assert made.executors["default"] == DebugExecutor()
    assert made.executors["slow"].max_workers == 4


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"global_config": {"asyncz.colour": "red"}}, "colour"),
        ({"task_defaults": {"colour": "red"}}, "colour"),
        ({"task_defaults": {"coalesce": "perhaps"}}, "perhaps"),
        ({"task_defaults": {"max_instances": 0}}, "max_instances=0"),
        ({"executors": {"a": "rocket"}}, "rocket"),
        ({"executors": {"a": {"type": "threadpool", "max_workers": "many"}}}, "many"),
        ({"stores": {"a": {"type": "sqlalchemy"}}}, "sqlalchemy"),
        ({"stores": {"a": {"type": "redis", "shoe": 1}}}, "shoe"),
        ({"timezone": "Atlantis/Capital"}, "Atlantis"),
    ],
)
def test_a_wrong_configuration_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        configure(**given)


def test_passwords_are_not_shown() -> None:
    choice = RedisStore(host="cache", password="s3cr3t/x")
    assert choice.url == "redis://:s3cr3t%2Fx@cache:6379/0"
    assert "s3cr3t" not in repr(choice)
    with pytest.raises(ConfigurationError) as caught:
        configure(stores={"a": {"type": "rediss", "password": "s3cr3t"}})
    assert "s3cr3t" not in str(caught.value)


def test_aliases_make_the_triggers_of_their_names() -> None:
    assert (
        trigger_of("interval", {"minutes": 2, "jitter": 5})
        == IntervalTrigger(minutes=2, jitter=5)
        == Every(120, jitter=5)
    )
    assert IntervalTrigger() == Every(1)
    weekly = CronTrigger(day_of_week="mon,wed,fri", hour="8", minute="1", second="5")
    assert weekly == Cron(day_of_week="mon,wed,fri", hour="8", minute="1", second="5")
    assert CronTrigger.from_crontab("0 0 * * 0", timezone=ZoneInfo("Europe/Berlin")) == Cron(
        "0 0 * * 0", zone="Europe/Berlin"
    )
    assert trigger_of("cron", {"hour": 8}, timezone="Asia/Tokyo") == Cron(hour=8, zone="Asia/Tokyo")
    berlin = datetime(2030, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert trigger_of("date", {"run_date": "2030-01-01"}, timezone="Europe/Berlin") == DateTrigger(berlin) == At(berlin)
    parts = [Every(120), Cron("0 0 * * *")]
    assert trigger_of("and", {"triggers": parts}) == AndTrigger(parts) == AllOf(*parts)
    assert trigger_of("or", {"triggers": parts}) == OrTrigger(parts) == AnyOf(*parts)
    assert zone_name(UTC) == "UTC"


@pytest.mark.parametrize(
    ("trigger", "arguments", "named"),
    [
        ("shutdown", {}, "shutdown"),
        ("interval", {"moons": 1}, "moons"),
        (Every(60), {"minutes": 1}, "minutes"),
        (7, {}, "no trigger"),
    ],
)
def test_a_wrong_alias_or_argument_is_named(trigger: Any, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(TriggerInvalid, match=named):
        trigger_of(trigger, arguments)


def test_tasks_are_pending_until_the_start() -> None:
    scheduler = Scheduler()
    scheduler.add_task(work, trigger=IntervalTrigger(minutes=2), id="b", name="B", executor="pool", max_instances=3)
    paused = scheduler.add_task(work, "cron", hour="0-23", minute="1", id="a", next_run_time=None)
    infos = scheduler.get_task_infos(sort_by="id")
    assert [(info.id, info.schedule_state.value) for info in infos] == [("a", "paused"), ("b", "pending")]
    assert (infos[1].name, infos[1].executor, infos[1].max_instances, infos[0].max_instances) == ("B", "pool", 3, 1)
    assert [after for _, after in scheduler.update_task("b", coalesce=False, dry_run=True).values()] == [False]
    assert scheduler.get_task_infos(sort_by="id") == infos
    paused.resume()
    assert paused.pending
    scheduler.update_task("b", coalesce=False)
    scheduler.reschedule_task("b", trigger="interval", minutes=20)
    info = scheduler.get_task_info("b")
    assert info is not None
    assert (info.coalesce, info.trigger_description) == (False, "every 1200 s")
    scheduler.delete_task("b")
    assert scheduler.get_task("b") is None
    assert scheduler.remove_all_tasks() == 1
    for call in (scheduler.pause, scheduler.resume, lambda: scheduler.run_task("a"), scheduler.shutdown):
        with pytest.raises(SchedulerNotRunning):
            call()


def test_an_id_is_chosen_or_the_tasks_name_and_numbered() -> None:
    scheduler = Scheduler()
    made = [scheduler.add_task(work, "interval", minutes=minutes).id for minutes in (1, 2, 3)]
    assert made == [f"{__name__}.work", f"{__name__}.work-2", f"{__name__}.work-3"]
    scheduler.add_task(work, "interval", minutes=1, id="mine")
    with pytest.raises(ScheduleExists, match="'mine'"):
        scheduler.add_task(work, "interval", minutes=2, id="mine")
    scheduler.add_task(work, "interval", minutes=2, id="mine", replace_existing=True)
    info = scheduler.get_task_info("mine")
    assert info is not None
    assert info.trigger_description == "every 120 s"


def test_a_task_object_is_added_once_and_a_decorator_as_often_as_it_is_used() -> None:
    scheduler = Scheduler()
    task = ScheduledTask(fn=work, args=[], trigger=IntervalTrigger(minutes=10), coalesce=False)
    assert scheduler.add_task(task) is task
    with pytest.raises(TaskSubmitted):
        scheduler.add_task(task)
    decorator = scheduler.add_task(trigger=IntervalTrigger(minutes=10), max_instances=1)
    for function in (lambda: None, lambda: None):
        assert decorator(function) is function
        assert [made.fn for made in vars(function)["callboard_tasks"]] == [function]
    assert len(scheduler.get_tasks()) == 3


def test_the_first_run_may_be_said() -> None:
    scheduler = Scheduler(timezone="Europe/Berlin")
    scheduler.add_task(work, "interval", minutes=10, id="grid", next_run_time=NEW_YEAR)
    scheduler.add_task(work, "cron", hour=5, id="clock", next_run_time="2030-01-01T12:00:00")
    grid, clock = scheduler.get_task("grid"), scheduler.get_task("clock")
    assert grid is not None
    assert clock is not None
    assert grid.settled_trigger() == Every(600, start=NEW_YEAR)
    first = datetime(2030, 1, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    timed = clock.settled_trigger()
    assert isinstance(timed, AnyOf)
    assert [timed.next_after(moment) for moment in (NEW_YEAR, first)] == [
        first,
        datetime(2030, 1, 2, 5, tzinfo=ZoneInfo("Europe/Berlin")),
    ]
    scheduler.reschedule_task("grid", trigger="interval", minutes=5)
    scheduler.update_task("clock", trigger=Every(300))
    assert grid.settled_trigger() == clock.settled_trigger() == Every(300)


def test_loggers_have_the_documented_names() -> None:
    class Mine(Loggers):
        def __missing__(self, name: str) -> logging.Logger:
            return super().__missing__(f"shop.{name}")

    assert Scheduler().logger.name == "callboard.schedulers"
    assert Scheduler(logger_name="worker-a").logger.name == "callboard.schedulers.worker-a"
    assert Scheduler(loggers_class=Mine).logger.name == "shop.callboard.schedulers"


def test_what_cannot_run_is_refused_with_what_to_do() -> None:
    async def waits() -> None: ...

    with pytest.raises(TriggerInvalid, match="minutes"):
        Scheduler().add_task(work, minutes=2)
    with pytest.raises(InvalidJob, match="a function"):
        Scheduler().add_task(7, "interval", minutes=2)  # type: ignore[arg-type]
    for executor, wanted in (("threadpool", "is async"), ("rocket", "rocket")):
        scheduler = Scheduler()
        scheduler.add_task(waits, "interval", minutes=2, executor=executor)
        with pytest.raises(ConfigurationError, match=wanted):
            scheduler.start()
        assert not scheduler.running
    with pytest.raises(ConfigurationError, match="of the app"):
        Scheduler(Callboard(), stores={"default": "memory"})
