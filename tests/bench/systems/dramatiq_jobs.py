"""dramatiq's side of the benchmark: a broker for its own worker command, and scripts that produce.

python dramatiq_jobs.py single|bulk JOBS FIRST     enqueue JOBS jobs; single: confirmed, bulk: not, its default
python dramatiq_jobs.py latency|confirmed JOBS     one job at a time, on an idle system; unconfirmed or confirmed
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import dramatiq
from dialogue import LATENCY_PAUSE_SECONDS, LATENCY_WARM_UP, answer, broker_url, spent, store_url, wait_for_go
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from marks import TEXT, Marks, hit

broker = RabbitmqBroker(url=broker_url(), confirm_delivery=sys.argv[1] in ("single", "confirmed"))
broker.add_middleware(Results(backend=RedisBackend(url=store_url()), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="bench", max_retries=0)
def mark(number: int, text: str) -> int:
    return hit(number)


def produce(jobs: int, first: int) -> None:
    broker.declare_queue("bench", ensure=True)
    wait_for_go()
    before = spent()
    for number in range(first, first + jobs):
        mark.send(number, TEXT)
    answer(spent().since(before))
    broker.close()


def latency(jobs: int) -> None:
    marks = Marks(Path(os.environ["BENCH_MARKS"]))
    starts, results = [], []
    broker.declare_queue("bench", ensure=True)
    wait_for_go()
    for number in range(jobs + LATENCY_WARM_UP):
        began = time.monotonic_ns()
        message = mark.send(number, TEXT)
        message.get_result(block=True, timeout=60_000)  # woken by Redis, no polling
        ended = time.monotonic_ns()
        if number >= LATENCY_WARM_UP:
            starts.append((marks.moments[number] - began) / 1e6)
            results.append((ended - began) / 1e6)
        time.sleep(LATENCY_PAUSE_SECONDS)
    answer({"start": starts, "result": results})
    broker.close()


if __name__ == "__main__":
    if sys.argv[1] in ("latency", "confirmed"):
        latency(int(sys.argv[2]))
    else:
        produce(int(sys.argv[2]), int(sys.argv[3]))
