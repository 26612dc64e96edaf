"""arq's side of bench_time.py. A worker: python -m arq arq_delays.WorkerSettings; jobs: python arq_delays.py JOBS FIRST
SPREAD."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, ClassVar

import timed_runs
from arq import create_pool
from arq.connections import RedisSettings

SETTINGS = RedisSettings.from_dsn(timed_runs.STORE)


async def note(_: dict[str, Any], number: int, due: int) -> None:
    timed_runs.note(number, due)


class WorkerSettings:
    functions: ClassVar[list[Any]] = [note]
    redis_settings = SETTINGS
    queue_name = timed_runs.NAME
    max_jobs = 100
    keep_result = 0


async def enqueue() -> None:
    pool = await create_pool(SETTINGS, default_queue_name=timed_runs.NAME)
    for number, due in enumerate(timed_runs.asked()):
        await pool.enqueue_job("note", number, due, _defer_until=datetime.fromtimestamp(due / 1000, UTC))
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(enqueue())
