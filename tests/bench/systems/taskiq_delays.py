"""taskiq's side of bench_time.py. A worker: taskiq worker taskiq_delays:broker; a scheduler: taskiq scheduler
taskiq_delays:scheduler; jobs: python taskiq_delays.py JOBS FIRST SPREAD."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import timed_runs
from taskiq import TaskiqScheduler
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType
from taskiq_redis import ListRedisScheduleSource

broker = AioPikaBroker(timed_runs.BROKER, qos=100, task_queues=[Queue(name=timed_runs.NAME, type=QueueType.CLASSIC)])
source = ListRedisScheduleSource(timed_runs.STORE, prefix=timed_runs.NAME)
scheduler = TaskiqScheduler(broker, [source])


@broker.task(task_name="note")
async def note(number: int, due: int) -> None:
    timed_runs.note(number, due)


async def enqueue() -> None:
    await broker.startup()
    await source.startup()
    for number, due in enumerate(timed_runs.asked()):
        await note.schedule_by_time(source, datetime.fromtimestamp(due / 1000, UTC), number, due)
    await source.shutdown()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(enqueue())
