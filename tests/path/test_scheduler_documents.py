"""What the documents of Asyncz and aioq show, with our names where theirs are of a product."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC
from typing import Any

import pytest

from callboard import Context, Queue
from callboard.runtime.scheduler import (
    AsyncIOExecutor,
    AsyncIOScheduler,
    CronTrigger,
    IntervalTrigger,
    Task,
    ThreadPoolExecutor,
)
from callboard.runtime.testing import running
from path.place import Place
from path.schedulers import SOON, wait_until

MONDAYS = {"day_of_week": "mon,wed,fri", "hour": "8", "minute": "1", "second": "5"}


def test_the_schedulers_page_of_asyncz() -> None:
    sent = threading.Event()

    def send_email_newsletter(feed: Any = None) -> None:
        sent.set()

    def collect_www_info() -> None: ...

    def check_status() -> None: ...

    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.add_task(send_email_newsletter, trigger=CronTrigger(**MONDAYS))
    scheduler.add_task(
        collect_www_info, trigger=IntervalTrigger(minutes=2), max_instances=1, replace_existing=True, coalesce=True
    )
    feed_data = None
    given: dict[str, Any] = {"args": [feed_data], "trigger": IntervalTrigger(minutes=10), "coalesce": False}
    scheduler.add_task(fn_or_task=send_email_newsletter, max_instances=1, replace_existing=True, **given)
    scheduler.add_task(Task(fn=send_email_newsletter, max_instances=1, replace_existing=True, **given))
    decorator = scheduler.add_task(max_instances=1, replace_existing=True, **given)
    decorator(send_email_newsletter)
    assert hasattr(send_email_newsletter, "callboard_tasks")

    executors = {"default": AsyncIOExecutor(), "threadpool": ThreadPoolExecutor(max_workers=20)}
    scheduler.setup(
        stores={"default": "memory"},
        executors=executors,
        task_defaults={"coalesce": False, "max_instances": 4},
        timezone=UTC,
    )
    task = scheduler.add_task(check_status, "cron", hour="0-23", minute="1")
    task.pause()
    task.resume()
    scheduler.add_task(id="newsletter", fn=send_email_newsletter, trigger=CronTrigger(**MONDAYS))
    status = scheduler.add_task(
        id="check_status", fn=check_status, trigger=IntervalTrigger(minutes=10), replace_existing=True
    )
    scheduler.update_task("newsletter", coalesce=False, max_instances=4)
    scheduler.update_task(status, coalesce=True, max_instances=3)
    scheduler.reschedule_task("newsletter", trigger="cron", day_of_week="mon", hour="1")
    scheduler.reschedule_task(status, trigger="interval", minutes=20)

    scheduler.start(paused=True)
    paused = scheduler.add_task(collect_www_info, trigger=IntervalTrigger(minutes=10), next_run_time=None)
    assert not sent.is_set()
    scheduler.run_task("newsletter", remove_finished=False)
    wait_until(sent.is_set)
    scheduler.resume()
    with scheduler:  # a noop: not the outermost scope
        ...
    info = scheduler.get_task_info("check_status")
    assert info is not None
    assert (info.schedule_state.value, info.trigger_alias) == ("scheduled", "interval")
    assert (info.coalesce, info.max_instances, info.trigger_description) == (True, 3, "every 1200 s")
    assert info.next_run_time is not None
    found = scheduler.get_task_infos(schedule_state="scheduled", trigger="interval", q="check", sort_by="next_run_time")
    assert found == [info]
    assert [one.id for one in scheduler.get_task_infos(schedule_state="paused")] == [paused.id]
    assert len(scheduler.get_tasks()) == 9
    assert scheduler.stop()
    assert not scheduler.running


@pytest.mark.parametrize("place", ["memory", "rabbitmq+redis"], indirect=True)
async def test_the_cron_page_of_aioq(place: Place) -> None:
    async with place.open() as app:
        seen: list[tuple[str, Any]] = []

        @app.cron("* * * * * *", queue="reports")
        async def cleanup_old_jobs(ctx):  # type: ignore[no-untyped-def]
            assert ctx["broker"] is ctx["app"]
            seen.append((ctx["worker_id"], ctx["app"]))

        @app.cron("0 9 * * 1-5", queue="reports", name="daily")
        async def send_daily_report(ctx: Context) -> None: ...

        async with running(app, actors=("worker", "repeatable-scheduler")):
            async with asyncio.timeout(SOON):
                while not seen:
                    await asyncio.sleep(0.01)
            infos = await app.queue("reports").get_task_infos(sort_by="name")
        assert [info.id for info in infos] == [
            "daily",
            f"{__name__}.test_the_cron_page_of_aioq.<locals>.cleanup_old_jobs",
        ]
        worker_id, its_app = seen[0]
        assert (len(worker_id), its_app) == (32, app)


@pytest.mark.parametrize("place", ["memory", "rabbitmq+redis"], indirect=True)
async def test_the_schedulers_page_of_asyncmq(place: Place) -> None:
    async with place.open(scan_interval=2.0) as app:
        queue = Queue("maintenance", app, concurrency=4)
        await queue.enqueue_delayed({"task_id": "maintenance.check"}, run_at=time.time() + 3600)
        await queue.add("maintenance.check", delay=3600)
        assert len(await queue.get_delayed()) == len(await queue.list_delayed()) == 2
        assert await queue.get_job_counts("waiting", "delayed", "completed", "failed") == {
            **{"waiting": 0, "delayed": 2, "completed": 0, "failed": 0}
        }
        queue.add_repeatable("maintenance.cleanup_tmp", every=300)
        next_run = await queue.upsert_repeatable(
            "billing.send_statement", cron="0 7 * * 1", kwargs={"region": "eu"}, retries=3
        )
        assert next_run is not None
        assert next_run > time.time()
        await queue.upsert_repeatable("maintenance.rotate_keys", cron="0 2 * * 0", kwargs={"scope": "prod"}, retries=5)
        await queue.upsert_repeatable("reporting.rebuild", every=900, kwargs={"tenant": "acme"})
        shown = {"task_id": "reporting.rebuild", "every": 900, "kwargs": {"tenant": "acme"}}
        await queue.pause_repeatable(shown)
        records = await queue.list_repeatables()
        assert [(record.id, record.paused) for record in records] == [
            ("billing.send_statement", False),
            ("maintenance.rotate_keys", False),
            ("reporting.rebuild", True),
        ]
        assert records[0].next_run == next_run
        resumed = await queue.resume_repeatable(shown)
        assert resumed is not None
        assert resumed > time.time()
        assert await queue.remove_repeatable(shown)
        assert not await queue.remove_repeatable(shown)
        assert await queue.count_repeatables() == 2
        await queue.obliterate()
