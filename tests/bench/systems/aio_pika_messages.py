"""The raw limit: aio-pika alone, persistent messages of a job's size; no task, no state, no result.

python aio_pika_messages.py single|bulk MESSAGES FIRST     publish, each confirmed; single: awaited, bulk: gathered,
                                                           250 at a time
python aio_pika_messages.py consume MESSAGES               consume and acknowledge one by one, prefetch 200
python aio_pika_messages.py receive                        the same on a queue for `latency`, until it is ended
python aio_pika_messages.py latency MESSAGES               one message at a time, received by another process
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from dialogue import LATENCY_PAUSE_SECONDS, LATENCY_WARM_UP, answer, broker_url, spent, wait_for_go
from marks import TEXT, Marks, hit

WINDOW, PREFETCH = 250, 200
QUEUE, OTHER_QUEUE = "bench.raw", "bench.raw.other"


def message(number: int) -> aio_pika.Message:
    body = json.dumps({"task": "bench.mark", "args": [number, TEXT]}).encode()
    return aio_pika.Message(body, delivery_mode=2, content_type="application/json")


async def publish(how: str, messages: int, first: int) -> None:
    connection = await aio_pika.connect(broker_url())
    channel = await connection.channel()
    await channel.declare_queue(QUEUE, durable=True)
    exchange = channel.default_exchange
    numbers = range(first, first + messages)
    wait_for_go()
    before = spent()
    if how == "single":
        for number in numbers:
            await exchange.publish(message(number), QUEUE)
    else:
        for start in range(0, messages, WINDOW):
            window = numbers[start : start + WINDOW]
            await asyncio.gather(*(exchange.publish(message(number), QUEUE) for number in window))
    answer(spent().since(before))
    await connection.close()


async def consume(messages: int) -> None:
    connection = await aio_pika.connect(broker_url())
    channel = await connection.channel()
    queue = await channel.declare_queue(QUEUE, durable=True)
    await channel.set_qos(PREFETCH)
    left, done = messages, asyncio.Event()

    async def receive(incoming: AbstractIncomingMessage) -> None:
        nonlocal left
        hit(json.loads(incoming.body)["args"][0])
        await incoming.ack()
        left -= 1
        if not left:
            done.set()

    wait_for_go()
    before = spent()
    await queue.consume(receive)
    await done.wait()
    answer(spent().since(before))
    await connection.close()


async def receive() -> None:
    connection = await aio_pika.connect(broker_url())
    channel = await connection.channel()
    queue = await channel.declare_queue(OTHER_QUEUE, durable=True)
    await channel.set_qos(PREFETCH)

    async def receive_one(incoming: AbstractIncomingMessage) -> None:
        hit(json.loads(incoming.body)["args"][0], "BENCH_MARKS_OTHER")
        await incoming.ack()

    await queue.consume(receive_one)
    await asyncio.Event().wait()


async def latency(messages: int) -> None:
    marks = Marks(Path(os.environ["BENCH_MARKS_OTHER"]))
    starts = []
    connection = await aio_pika.connect(broker_url())
    channel = await connection.channel()
    await channel.declare_queue(OTHER_QUEUE, durable=True)
    wait_for_go()
    for number in range(messages + LATENCY_WARM_UP):
        began = time.monotonic_ns()
        await channel.default_exchange.publish(message(number), OTHER_QUEUE)
        while not marks.moments[number]:
            await asyncio.sleep(0.001)
        if number >= LATENCY_WARM_UP:
            starts.append((marks.moments[number] - began) / 1e6)
        await asyncio.sleep(LATENCY_PAUSE_SECONDS)
    answer({"start": starts})
    await connection.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        match sys.argv[1]:
            case "consume":
                runner.run(consume(int(sys.argv[2])))
            case "receive":
                runner.run(receive())
            case "latency":
                runner.run(latency(int(sys.argv[2])))
            case how:
                runner.run(publish(how, int(sys.argv[2]), int(sys.argv[3])))
