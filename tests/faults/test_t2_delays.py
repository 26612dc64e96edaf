"""T2: delayed jobs on real servers, scanners and workers in processes of their own: none early, each once, one message
each, whatever becomes of scanners and of the broker's connections. How late they are is printed by bench_time.py."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from callboard.runtime.testing import settled
from faults.fleet import FAST
from faults.timed import QUEUE, Timed, wrong

PATIENT = {**FAST, "CALLBOARD_RELAY_GRACE_SECONDS": "60"}  # no relay sends copies of what is merely slow


@pytest.fixture(params=["redis_url", "mongo_url"])
def store(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


async def test_two_hundred_delayed_jobs_are_two_hundred_runs_and_two_hundred_tickets(
    store: str, amqp_url: str, tmp_path: Path
) -> None:
    async with Timed(tmp_path, store=store, broker=amqp_url, settings=PATIENT) as timed:
        await timed.start(scanners=3, workers=4)
        await timed.spy()
        await timed.enqueue(200, over_seconds=3)
        runs = await timed.runs(200)
        assert wrong(runs, 200) is None
        assert timed.tickets == 200
        assert timed.messages <= 200
        assert timed.fleet.complaints() == []


async def test_delayed_jobs_run_once_and_never_early_while_scanners_are_killed_and_stopped(
    store: str, amqp_url: str, tmp_path: Path
) -> None:
    async with Timed(tmp_path, store=store, broker=amqp_url, settings=FAST) as timed:
        await timed.start(scanners=3, workers=2)
        await timed.enqueue(200, over_seconds=3)
        killed, stopped = timed.fleet["delayed-scanner-0"], timed.fleet["delayed-scanner-1"]
        for _ in range(2):
            stopped.signal(signal.SIGSTOP)
            killed.kill()
            await asyncio.sleep(1.2)
            killed.start()
            stopped.signal(signal.SIGCONT)
            await asyncio.sleep(1.2)
        assert wrong(await timed.runs(200), 200) is None
        await settled(timed.app, QUEUE, timeout=60)
        assert (await timed.app.queue(QUEUE).queue_counts()).completed == 200
        assert timed.fleet.complaints() == []
