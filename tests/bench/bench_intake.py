"""What a submission costs: one intake process beside plain aio-pika that consumes and publishes, in the same run.

    tests/run tests/bench/bench_intake.py -m bench -s

10,000 submissions, one job and one message each, wait in `callboard.intake`; nobody asks for a reply. Timed is from the
start of the one intake process's consuming until every job is recorded and its submission acked; no worker runs. Raw
aio-pika takes the same 10,000 messages from a quorum queue and publishes each to a classic one, persistent, then
acks it, prefetch 200: with publisher confirms, and without; the better of the two counts. Rounds alternate.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from pathlib import Path

import aio_pika
import pytest

from callboard.brokers.message import Message, Receipt
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.topology import Names
from callboard.metadata.contract import Inspection
from faults.fleet import Deployed, Fleet
from redis_space import RedisSpace

SUBMISSIONS = 10_000
WINDOW = 500
ROUNDS = 3
QUEUE = "bench"
LOOK_SECONDS = 0.005
WANTED = 0.5
RAW = Path(__file__).with_name("raw_aio_pika.py")


def submission(number: int) -> bytes:
    job = {"task": "emails.send", "args": ["a@b.c"], "kwargs": {"subject": "hi"}, "id": f"job-{number:05}"}
    return json.dumps(job).encode()


async def fill(broker: RabbitMQBroker, exchange: str, routing_key: str) -> None:
    bodies = [submission(number) for number in range(SUBMISSIONS)]
    for start in range(0, SUBMISSIONS, WINDOW):
        messages = [
            Message(exchange=exchange, routing_key=routing_key, body=one) for one in bodies[start : start + WINDOW]
        ]
        assert set(await broker.publish(messages, timeout=30)) == {Receipt.CONFIRMED}


async def intake_rate(folder: Path, broker: RabbitMQBroker, *, amqp_url: str, redis_url: str) -> float:
    names = Names(f"bench-{secrets.token_hex(6)}")
    await broker.declare(names.exchanges())
    await fill(broker, names.submit, QUEUE)
    space = RedisSpace(redis_url)
    space.namespace = names.namespace
    store = space.store()
    await store.open()
    inspection = store.get(Inspection)
    fleet = Fleet(folder, Deployed(namespace=names.namespace, store=redis_url, broker=amqp_url, settings={}))
    with fleet:
        process = fleet.start("intake", ["-m", "callboard", "run", "intake"])
        while not process.said("takes in"):
            await asyncio.sleep(LOOK_SECONDS)
        began = time.perf_counter()
        recorded = (await inspection.counts([QUEUE]))[QUEUE].waiting
        while (await inspection.counts([QUEUE]))[QUEUE].waiting < SUBMISSIONS:
            await asyncio.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - began
        await asyncio.to_thread(fleet.stop)
        depth = await broker.depth(names.intake)
        assert depth is not None
        assert depth.ready == 0, "every submission was acked"
        assert fleet.complaints() == []
    await store.close()
    await space.delete()
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for queue in (names.intake, names.dead, names.job_queue(QUEUE)):
            await channel.queue_delete(queue)
        for exchange in names.exchanges().exchanges:
            await channel.exchange_delete(exchange.name)
    return (SUBMISSIONS - recorded) / seconds


async def raw_rate(broker: RabbitMQBroker, *, amqp_url: str, confirms: str) -> float:
    source, target = f"bench.{secrets.token_hex(6)}", f"bench.{secrets.token_hex(6)}"
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(source, durable=True, arguments={"x-queue-type": "quorum"})
        await channel.declare_queue(target, durable=True)
        await fill(broker, "", source)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(RAW), amqp_url, source, target, str(SUBMISSIONS), confirms),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        await channel.queue_delete(source)
        await channel.queue_delete(target)
    return float(output)


@pytest.mark.bench
async def test_intake_takes_in_at_least_half_of_what_raw_consuming_and_publishing_does(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    broker = RabbitMQBroker.from_url(amqp_url, name="bench")
    await broker.open()
    ratios = []
    for number in range(ROUNDS):
        ours = await intake_rate(tmp_path / str(number), broker, amqp_url=amqp_url, redis_url=redis_url)
        confirmed = await raw_rate(broker, amqp_url=amqp_url, confirms="confirms")
        hopeful = await raw_rate(broker, amqp_url=amqp_url, confirms="none")
        ratios.append(ours / max(confirmed, hopeful))
        print(
            f"\nround {number + 1}: intake {ours:,.0f}/s; raw aio-pika {confirmed:,.0f}/s, without confirms "
            f"{hopeful:,.0f}/s; ratio to the better one {ratios[-1]:.2f}"
        )
    await broker.close()
    assert sorted(ratios)[ROUNDS // 2] >= WANTED
