"""What bench_intake.py compares with, in a process of its own: `raw_aio_pika.py URL SOURCE TARGET COUNT confirms|none`
takes messages from one queue, publishes each to another, acks it, and prints how many a second."""

from __future__ import annotations

import asyncio
import sys
import time

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage


async def raw(amqp_url: str, source: str, target: str, count: str, confirms: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        publishing: AbstractChannel = await connection.channel(publisher_confirms=confirms == "confirms")
        await channel.set_qos(200)
        queue = await channel.get_queue(source)
        left, done = int(count), asyncio.Event()
        began = 0.0

        async def receive(message: AbstractIncomingMessage) -> None:
            nonlocal left, began
            began = began or time.perf_counter()
            await publishing.default_exchange.publish(aio_pika.Message(message.body, delivery_mode=2), target)
            await message.ack()
            left -= 1
            if not left:
                done.set()

        tag = await queue.consume(receive)
        await done.wait()
        print(int(count) / (time.perf_counter() - began))
        await queue.cancel(tag)


if __name__ == "__main__":
    asyncio.run(raw(*sys.argv[1:]))
