"""taskiq's side of the benchmark: a broker for its own worker command, and scripts that produce.

python taskiq_jobs.py single|bulk JOBS FIRST    enqueue JOBS jobs; single: awaited, bulk: 250 gathered
python taskiq_jobs.py latency JOBS              one job at a time, on an idle system
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import uvloop
from dialogue import LATENCY_PAUSE_SECONDS, LATENCY_WARM_UP, answer, broker_url, spent, store_url, wait_for_go
from marks import TEXT, Marks, hit
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType
from taskiq_redis import RedisAsyncResultBackend

WINDOW = 250
QOS = 100  # its own default is 10
QUEUE = Queue(name="taskiq", type=QueueType.CLASSIC)  # as the others have; its own default is quorum
POLL_SECONDS = 0.001  # its own default is 0.2; it has no way to be woken

broker = AioPikaBroker(broker_url(), qos=QOS, task_queues=[QUEUE]).with_result_backend(
    RedisAsyncResultBackend(store_url(), result_ex_time=600)
)


@broker.task(task_name="bench.mark")
async def mark(number: int, text: str) -> int:
    return hit(number)


async def produce(how: str, jobs: int, first: int) -> None:
    await broker.startup()
    numbers = range(first, first + jobs)
    wait_for_go()
    before = spent()
    if how == "single":
        for number in numbers:
            await mark.kiq(number, TEXT)
    else:
        for start in range(0, jobs, WINDOW):
            await asyncio.gather(*(mark.kiq(number, TEXT) for number in numbers[start : start + WINDOW]))
    answer(spent().since(before))
    await broker.shutdown()


async def latency(jobs: int) -> None:
    marks = Marks(Path(os.environ["BENCH_MARKS"]))
    starts, results = [], []
    await broker.startup()
    wait_for_go()
    for number in range(jobs + LATENCY_WARM_UP):
        began = time.monotonic_ns()
        task = await mark.kiq(number, TEXT)
        await task.wait_result(check_interval=POLL_SECONDS, timeout=60)
        ended = time.monotonic_ns()
        if number >= LATENCY_WARM_UP:
            starts.append((marks.moments[number] - began) / 1e6)
            results.append((ended - began) / 1e6)
        await asyncio.sleep(LATENCY_PAUSE_SECONDS)
    answer({"start": starts, "result": results})
    await broker.shutdown()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[1] == "latency":
            runner.run(latency(int(sys.argv[2])))
        else:
            runner.run(produce(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
