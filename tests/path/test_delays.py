"""Delayed jobs on their way from a producer to the scanner, whose settings are not its own."""

from __future__ import annotations

import pytest

from callboard.runtime.clock import SystemClock
from callboard.runtime.testing import running
from path.place import Place

SOON = 45.0  # a scanner that was not told would sleep for 60 s


@pytest.mark.parametrize("place", ["rabbitmq+redis", "rabbitmq+mongodb"], indirect=True)
async def test_a_scanner_is_told_of_a_job_that_is_later_than_its_producer_would_sleep_itself(place: Place) -> None:
    async with place.open(scan_interval=60) as app:

        @app.task(name="echo", queue="delays")
        async def echo(text: str) -> str:
            return text

        async with running(app, actors=("worker", "delayed-scanner")), place.app(scan_interval=0.05) as producer:
            queue = producer.queue("delays")
            at_once = queue.handle(await queue.add("echo", ["at once"]))
            assert await at_once.result(timeout=SOON) == "at once"
            first = await queue.add("echo", ["first"], delay=1.5)
            assert await queue.handle(first).result(timeout=SOON) == "first"
            later = await queue.add("echo", ["later"], delay=3600)
            assert await queue.reschedule_delayed(later, delay=1.5)
            assert await queue.handle(later).result(timeout=SOON) == "later"


class HourAhead(SystemClock):
    def now(self) -> int:
        return super().now() + 3_600_000


@pytest.mark.parametrize("place", ["rabbitmq+redis", "rabbitmq+mongodb"], indirect=True)
async def test_a_moment_that_has_come_by_the_producers_clock_alone_is_waited_for(place: Place) -> None:
    right = SystemClock().now() / 1000
    async with place.open(clock=HourAhead()) as producer:
        queue = producer.queue("delays")
        ids = [await queue.add("echo", run_at=right + seconds) for seconds in (-60, 0, 600)]
        assert [str((await queue.get_job(id)).state) for id in ids] == ["waiting", "waiting", "delayed"]
