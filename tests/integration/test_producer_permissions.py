"""What PROTOCOL.md tells operators, tried on a RabbitMQ of the test's own: a producer's permissions, and the policy
that is the last fuse of `callboard.intake`."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError, ChannelClosed

from callboard.brokers.message import Delivery
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.topology import Names
from callboard.runtime.clock import SystemClock
from callboard.runtime.dead_letter import DeadLetter
from callboard.runtime.dead_queue import DeadQueue
from servers import ProgramMissing, RabbitMQServer

PROTOCOL = Path(__file__).parents[2] / "PROTOCOL.md"
NAMES = Names()


def commands(beginning: str) -> list[str]:
    """Those of PROTOCOL.md that begin so, as arguments of rabbitmqctl."""
    text = PROTOCOL.read_text().replace("\\\n", " ")
    (found,) = re.findall(rf"^ *rabbitmqctl ({beginning}.*?)$(?!\n *\")", text, re.MULTILINE | re.DOTALL)
    return shlex.split(found)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    try:
        server = RabbitMQServer(tmp_path_factory.mktemp("rabbitmq"))
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    with server:
        server.ctl("add_user", "producer", "secret")
        server.ctl(*commands("set_permissions producer"))
        yield server


@pytest.fixture
async def broker(server: RabbitMQServer) -> AsyncIterator[RabbitMQBroker]:
    broker = RabbitMQBroker.from_url(server.url, name="operator")
    await broker.open()
    await broker.declare(NAMES.exchanges())
    yield broker
    await broker.close()


async def producer(server: RabbitMQServer) -> aio_pika.abc.AbstractConnection:
    return await aio_pika.connect(server.url.replace("guest:guest", "producer:secret"))


async def test_a_producer_may_submit_and_be_answered_and_nothing_else(
    server: RabbitMQServer, broker: RabbitMQBroker
) -> None:
    async with await producer(server) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(NAMES.submit, ensure=False)
        replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await replies.consume(print, no_ack=True)
        await exchange.publish(aio_pika.Message(b"{}", reply_to="amq.rabbitmq.reply-to"), "emails")
        for forbidden in (NAMES.jobs, NAMES.control, NAMES.events, NAMES.dead, "amq.topic"):
            closed = await connection.channel()
            with pytest.raises((ChannelClosed, AMQPError), match=r"ACCESS_REFUSED|access to exchange"):
                await (await closed.get_exchange(forbidden, ensure=False)).publish(aio_pika.Message(b"{}"), "x")
        for queue in (NAMES.intake, NAMES.dead):
            closed = await connection.channel()
            with pytest.raises((ChannelClosed, AMQPError), match=r"ACCESS_REFUSED|access to queue"):
                await (await closed.get_queue(queue, ensure=False)).consume(print)
        closed = await connection.channel()
        with pytest.raises((ChannelClosed, AMQPError), match=r"ACCESS_REFUSED|access to queue"):
            await closed.declare_queue("mine")
    depth = await broker.depth(NAMES.intake)
    assert depth is not None
    assert depth.ready == 1
    await broker.purge(NAMES.intake)


async def test_a_topic_permission_decides_who_submits_to_which_queue(
    server: RabbitMQServer, broker: RabbitMQBroker
) -> None:
    await asyncio.to_thread(server.ctl, *commands("set_topic_permissions producer"))
    async with await producer(server) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(NAMES.submit, ensure=False)
        await exchange.publish(aio_pika.Message(b"{}"), "emails")
        for other in ("reports", ""):
            closed = await connection.channel()
            with pytest.raises((ChannelClosed, AMQPError), match=r"ACCESS_REFUSED|access to topic"):
                await (await closed.get_exchange(NAMES.submit, ensure=False)).publish(aio_pika.Message(b"{}"), other)
    await asyncio.to_thread(server.ctl, "clear_topic_permissions", "producer")
    await broker.purge(NAMES.intake)


async def test_the_policy_puts_aside_what_is_delivered_too_often(
    server: RabbitMQServer, broker: RabbitMQBroker
) -> None:
    given = commands("set_policy callboard-intake")
    await asyncio.to_thread(server.ctl, *given)
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(NAMES.submit, ensure=False)
        queue = await channel.get_queue(NAMES.intake, ensure=False)
        await exchange.publish(aio_pika.Message(b"again and again", delivery_mode=2, message_id="m-1"), "emails")
        async with asyncio.timeout(20):
            while await letters(broker) == []:
                message = await queue.get(fail=False)
                if message is not None:
                    await message.nack(requeue=True)
    (letter,) = await letters(broker)
    assert (letter.reason, letter.exchange, letter.routing_key) == ("delivery_limit", NAMES.submit, "emails")
    assert (letter.body, letter.properties["message_id"], letter.complete) == (b"again and again", "m-1", True)


async def letters(broker: RabbitMQBroker) -> list[DeadLetter]:
    found: list[DeadLetter] = []

    def see(letter: DeadLetter, _: Delivery) -> bool:
        found.append(letter)
        return True

    await DeadQueue(broker, NAMES, SystemClock(), lifetime=None).look(see)
    return found
