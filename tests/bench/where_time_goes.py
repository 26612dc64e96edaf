"""Where the processor's time of one worker goes: CPU us per job by part, sampled by CPU time within the process.

    python tests/bench/where_time_goes.py JOBS BROKER_URL REDIS_URL

Works on a namespace of its own, and leaves it. A sample is taken where Python next looks for signals, so what the event
loop does in C counts for whatever it calls next.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections import Counter
from random import Random
from types import FrameType

from callboard import Callboard
from callboard.actors.worker import Worker
from callboard.runtime.actor import Options
from callboard.runtime.cli.run import loop_factory
from callboard.runtime.deployment import Deployment

SAMPLE_SECONDS = 0.0005
WARM = 0.1  # the first part of the jobs is not counted
PARTS = (  # by the innermost file of ours
    ("arguments", "check the arguments"),
    ("results", "encode the result"),
    ("json_value", "encode the result"),
    ("metadata/redis", "ask Redis: pack, write, read, unpack"),
    ("brokers/rabbitmq", "RabbitMQ: read bundles, ack, write events"),
    ("runtime/wire", "decode bundles, encode events"),
    ("runtime/finisher", "finish: outcomes, events"),
    ("runtime/dispatcher", "finish: outcomes, events"),
    ("runtime/executors", "call the handler"),
    ("runtime/runner", "run: context, outcome, history"),
    ("runtime/context", "run: context, outcome, history"),
    ("runtime/runs", "start and end: tables, tasks"),
    ("runtime/run.", "start and end: tables, tasks"),
    ("runtime/claims", "claim: take, ask, sort the answers"),
    ("runtime/backlog", "claim: take, ask, sort the answers"),
    ("actors/worker", "claim: take, ask, sort the answers"),
)


def part_of(frame: FrameType | None) -> str:
    while frame is not None:
        file = frame.f_code.co_filename
        for mark, part in PARTS:
            if "callboard" in file and mark in file:
                return part
        frame = frame.f_back
    return "the event loop and the rest"


async def main(jobs: int, broker: str, store: str) -> None:
    samples: Counter[str] = Counter()
    app = Callboard(broker=broker, store=store, namespace=f"where-{secrets.token_hex(4)}")
    done, cpu, ran = asyncio.Event(), 0.0, 0
    signal.signal(signal.SIGPROF, lambda _, frame: samples.update((part_of(frame),)))

    @app.task(name="mark", queue="bench")
    async def mark(number: int, text: str) -> int:
        nonlocal ran, cpu
        ran += 1
        if ran == round(jobs * WARM):
            cpu = -time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
        if ran == jobs:
            signal.setitimer(signal.ITIMER_PROF, 0)
            cpu += time.process_time()
            done.set()
        return number

    async with app:
        queue = app.queue("bench")
        await queue.add_bulk([{"task_id": "mark", "args": [number, "x" * 200]} for number in range(jobs)])
        deployment = Deployment(app, [Worker], Options(queues=("bench",), concurrency=100), random=Random(1))
        running = asyncio.create_task(deployment.run())
        await done.wait()
        deployment.stop()
        await running
        await queue.obliterate(force=True)
    each = cpu / (jobs * (1 - WARM)) * 1e6
    for part, count in samples.most_common():
        print(f"{each * count / samples.total():6.1f}  {part}")
    print(f"{each:6.1f}  CPU us per job")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(int(sys.argv[1]), *sys.argv[2:]))
