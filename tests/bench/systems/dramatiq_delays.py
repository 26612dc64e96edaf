"""dramatiq's side of bench_time.py. A worker: python -m dramatiq dramatiq_delays; jobs: python dramatiq_delays.py JOBS
FIRST SPREAD."""

from __future__ import annotations

import time

import dramatiq
import timed_runs
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=timed_runs.BROKER)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=timed_runs.NAME, max_retries=0)
def note(number: int, due: int) -> None:
    timed_runs.note(number, due)


if __name__ == "__main__":
    for number, due in enumerate(timed_runs.asked()):
        note.send_with_options(args=(number, due), delay=max(0, due - time.time_ns() // 1_000_000))
    broker.close()
