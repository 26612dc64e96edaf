"""Twenty thousand jobs through processes as they are deployed: a worker, a delayed scanner, a stalled recovery and a
producer, each on its own, on a real RabbitMQ and Redis."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from aio_pika import connect

from callboard.brokers.contract import Depth
from callboard.brokers.topology import Names
from callboard.metadata.contract import Counts, Inspection
from callboard.runtime.registry import make_broker, make_store
from faults.fleet import ENDED, Deployed, Fleet, actor
from faults.ledger import Event, read
from integration.counting import APP, JOBS, QUEUE, job_id
from redis_space import RedisSpace

PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.1


@pytest.fixture
async def space(redis_url: str, amqp_url: str) -> AsyncIterator[RedisSpace]:
    """A namespace of the test's own on both servers, gone afterwards."""
    space = RedisSpace(redis_url)
    yield space
    await space.delete()
    names = Names(space.namespace)
    async with await connect(amqp_url) as connection:
        channel = await connection.channel()
        for queue in (names.job_queue(QUEUE), names.dead, names.intake):
            await channel.queue_delete(queue)
        for exchange in names.exchanges().exchanges:
            await channel.exchange_delete(exchange.name)


@pytest.mark.slow
async def test_twenty_thousand_jobs_run_once_each_and_leave_nothing_behind(
    tmp_path: Path, space: RedisSpace, amqp_url: str
) -> None:
    ledger = tmp_path / f"ledger-{uuid4().hex}"
    deployed = Deployed(
        namespace=space.namespace,
        store=space.url,
        broker=amqp_url,
        settings={"CALLBOARD_KEEP_COMPLETED_SECONDS": "3600", "CALLBOARD_KEEP_COMPLETED_COUNT": str(2 * JOBS)},
    )
    store = make_store(space.url, namespace=space.namespace)
    await store.open()
    try:
        with Fleet(tmp_path / "logs", deployed, COUNTING_LEDGER=str(ledger)) as fleet:
            for kind in ("worker", "delayed-scanner", "stalled-recovery"):
                fleet.start(kind, actor(kind, app=APP, concurrency=100))
            fleet.start("producer", ["-m", "integration.counting"])

            inspection = store.get(Inspection)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while (counts := (await inspection.counts([QUEUE]))[QUEUE]).completed < JOBS:
                assert time.monotonic() < deadline, f"after {PATIENCE_SECONDS:g} s: {counts}"
                await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(fleet.stop)

            entries = read(ledger)
            starts = Counter(entry.run.job for entry in entries if entry.event is Event.START)
            seconds = entries[-1].elapsed - entries[0].elapsed
            print(f"{JOBS} jobs in {seconds:.1f} s: {JOBS / seconds:.0f} jobs/s, from the first start to the last end")

            assert starts == Counter(job_id(number) for number in range(JOBS))
            assert (await inspection.counts([QUEUE]))[QUEUE] == Counts(completed=JOBS)
            assert await inspection.audit(QUEUE) == []
            assert await depth(amqp_url, Names(space.namespace).job_queue(QUEUE)) == Depth(ready=0, consumers=0)
            assert fleet.complaints() == []
            assert [member.name for member in fleet if not member.said(ENDED)] == ["producer"]
    finally:
        await store.close()


async def depth(amqp_url: str, queue: str) -> Depth | None:
    broker = make_broker(amqp_url, name="the test")
    await broker.open()
    try:
        return await broker.depth(queue)
    finally:
        await broker.close()
