"""What a message costs: our broker, on the fast and on the plain path, beside aio-pika, in one process, on one server.

    tests/run tests/bench/bench_rabbitmq.py -m bench -s

Persistent, mandatory, confirmed messages of 300 bytes to a durable classic queue, at most 256 in flight; then consumed
with prefetch 200 and acknowledged one by one. CPU is that of this process only.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from callboard.brokers.message import Delivery, Message, Receipt
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.rabbitmq.framing import Frames
from callboard.brokers.topology import Queue, Topology

MESSAGES = 5_000
WINDOW = 250
PREFETCH = 200
BODY = b"x" * 300
ROUNDS = 3


async def measured(name: str, work: Callable[[], Awaitable[None]]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    await work()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"  {name:<22} {MESSAGES / seconds:>9,.0f} msgs/s {cpu / MESSAGES * 1e6:>8.1f} us CPU a message")


async def ours(url: str, queue: str, frames: Frames) -> None:
    broker = RabbitMQBroker.from_url(f"{url}?frames={frames}", name="bench")
    await broker.open()
    await broker.declare(Topology(queues=(Queue(queue),)))
    message = Message(exchange="", routing_key=queue, body=BODY)

    async def publish() -> None:
        for _ in range(MESSAGES // WINDOW):
            receipts = await broker.publish([message] * WINDOW, timeout=30)
            assert set(receipts) == {Receipt.CONFIRMED}

    async def consume() -> None:
        left, done = MESSAGES, asyncio.Event()

        def receive(delivery: Delivery) -> None:
            nonlocal left
            left -= 1
            delivery.ack()
            if not left:
                done.set()

        consumer = await broker.consume(queue, receive, prefetch=PREFETCH)
        await done.wait()
        await consumer.cancel()

    await measured(f"{frames} publish", publish)
    await measured(f"{frames} consume+ack", consume)
    await broker.delete(queue)
    await broker.close()


async def plain(url: str, queue: str) -> None:
    connection = await aio_pika.connect(url)
    channel = await connection.channel(on_return_raises=True)
    declared = await channel.declare_queue(queue, durable=True)

    async def publish_one() -> None:
        await channel.default_exchange.publish(
            aio_pika.Message(BODY, delivery_mode=2, content_type="application/json"), queue, mandatory=True
        )

    async def publish() -> None:
        for _ in range(MESSAGES // WINDOW):
            await asyncio.gather(*(publish_one() for _ in range(WINDOW)))

    async def consume() -> None:
        left, done = MESSAGES, asyncio.Event()

        async def receive(message: AbstractIncomingMessage) -> None:
            nonlocal left
            left -= 1
            await message.ack()
            if not left:
                done.set()

        await channel.set_qos(PREFETCH)
        tag = await declared.consume(receive)
        await done.wait()
        await declared.cancel(tag)

    await measured("aio-pika publish", publish)
    await measured("aio-pika consume+ack", consume)
    await declared.delete(if_unused=False, if_empty=False)
    await connection.close()


async def test_what_a_message_costs(amqp_url: str) -> None:
    queue = f"bench.{secrets.token_hex(6)}"
    for number in range(ROUNDS):
        print(f"\nround {number + 1}")
        for frames in Frames:
            await ours(amqp_url, queue, frames)
        await plain(amqp_url, queue)
