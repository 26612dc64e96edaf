"""What PROTOCOL.md tells operators, tried on a RabbitMQ of the test's own: a producer's permissions, and the policy
that is the last fuse of `callboard.intake`, for which quarantine isolates the message that blows it."""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError, ChannelClosed

from callboard.brokers.message import Delivery
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.topology import Names
from callboard.metadata.contract import Inspection
from callboard.runtime.clock import SystemClock
from callboard.runtime.dead_letter import DeadLetter, Filter
from callboard.runtime.dead_queue import DeadQueue
from callboard.runtime.testing import running
from faults.proxy import Cut, Direction, Link, Proxy, Unit
from integration.redis_private import require
from path.place import Place
from servers import RabbitMQServer

PROTOCOL = Path(__file__).parents[2] / "PROTOCOL.md"
NAMES = Names()


def commands(beginning: str) -> list[str]:
    """Those of PROTOCOL.md that begin so, as arguments of rabbitmqctl."""
    text = PROTOCOL.read_text().replace("\\\n", " ")
    (found,) = re.findall(rf"^ *rabbitmqctl ({beginning}.*?)$(?!\n *\")", text, re.MULTILINE | re.DOTALL)
    return shlex.split(found)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    with require(lambda: RabbitMQServer(tmp_path_factory.mktemp("rabbitmq"))) as server:
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


async def connected(server: RabbitMQServer, user: str) -> aio_pika.abc.AbstractConnection:
    """As a user with the rights that PROTOCOL.md gives one of this name."""
    await asyncio.to_thread(server.ctl, "add_user", user, "secret")
    await asyncio.to_thread(server.ctl, *commands(f"set_permissions {user}"))
    return await aio_pika.connect(server.url.replace("guest:guest", f"{user}:secret"))


async def test_a_producer_with_a_queue_for_its_replies_reads_its_own_and_no_other(
    server: RabbitMQServer, broker: RabbitMQBroker
) -> None:
    async with await connected(server, "asker") as connection, await aio_pika.connect(server.url) as operator:
        channel, other = await connection.channel(), await operator.channel()
        replies = await channel.declare_queue(exclusive=True)
        await (await channel.get_exchange(NAMES.submit, ensure=False)).publish(aio_pika.Message(b"{}"), "emails")
        await other.default_exchange.publish(aio_pika.Message(b"yes"), replies.name)
        assert (await replies.get(timeout=60)).body == b"yes"
        theirs = await other.declare_queue(exclusive=True)
        for queue in (theirs.name, NAMES.intake, NAMES.dead):
            closed = await connection.channel()
            with pytest.raises((ChannelClosed, AMQPError), match=r"ACCESS_REFUSED|RESOURCE_LOCKED|access to"):
                await (await closed.get_queue(queue, ensure=False)).consume(print)
    await broker.purge(NAMES.intake)


async def test_who_listens_to_events_hears_them_and_may_submit_nothing(
    server: RabbitMQServer, broker: RabbitMQBroker
) -> None:
    async with await connected(server, "listener") as connection, await aio_pika.connect(server.url) as operator:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(NAMES.events, "emails.*")
        events = await (await operator.channel()).get_exchange(NAMES.events, ensure=False)
        await events.publish(aio_pika.Message(b"over"), "emails.completed")
        assert (await queue.get(timeout=60)).body == b"over"
        for forbidden in (NAMES.submit, NAMES.jobs, NAMES.events):
            closed = await connection.channel()
            with pytest.raises((ChannelClosed, AMQPError), match=r"ACCESS_REFUSED|access to exchange"):
                await (await closed.get_exchange(forbidden, ensure=False)).publish(aio_pika.Message(b"{}"), "x")


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


async def test_a_policy_gives_the_letters_that_rabbitmq_adds_an_age(
    server: RabbitMQServer, broker: RabbitMQBroker
) -> None:
    await broker.purge(NAMES.dead)  # the policy holds for what comes after it
    given = commands("set_policy callboard-dead")
    await asyncio.to_thread(server.ctl, *[part.replace("1209600000", "500") for part in given])
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(NAMES.dead, ensure=False)
        await exchange.publish(aio_pika.Message(b"of no age", delivery_mode=2), "emails")
    async with asyncio.timeout(60):
        while await ready(broker, NAMES.dead):
            await asyncio.sleep(0.1)
    await asyncio.to_thread(server.ctl, "clear_policy", "callboard-dead")


MARK = b"<what ends a connection>"


class Killer(Proxy):
    """Resets the connection on which a message with the mark is about to be delivered, as a client's decoder would that
    fails on it. The mark stands in the message twice, so that one is whole wherever the stream is cut."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.kills = 0

    def next_cut(self, link: Link, direction: Direction, data: bytes, frame_ends: list[int]) -> tuple[Cut | None, int]:
        if direction is Direction.TO_CLIENT and MARK in data:
            self.kills += 1
            return Cut(1, Unit.WRITES, direction), 0
        return super().next_cut(link, direction, data, frame_ends)


async def isolate(broker: RabbitMQBroker, server: RabbitMQServer, place: Place, *, limit: int) -> list[str]:
    """What the intake said of it, once the one bad submission is put aside and the others are taken in."""
    names = Names(place.namespace)
    command = [part.replace("callboard", place.namespace) for part in commands("set_policy callboard-intake")]
    await asyncio.to_thread(server.ctl, *[part.replace('limit": 20', f'limit": {limit}') for part in command])
    forged = {
        "callboard-reason": "forged",
        "callboard-exchange": names.jobs,
        "x-death": [{"queue": names.intake, "reason": "delivery_limit", "exchange": names.jobs, "count": 1}],
    }
    killer = b'{"task":"' + MARK + b" " * 100 + MARK + b'"}'
    ids = [f"good-{number}" for number in range(120)]
    bodies = [b'{"task":"work","id":"%s"}' % name.encode() for name in ids]
    heard = Heard()
    async with Killer("127.0.0.1", server.port) as proxy, heard:
        place.broker = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
        async with place.open() as app:
            await submit(server, names, [(body, {}) for body in bodies[:60]] + [(killer, forged)])
            async with running(app, actors=["intake"]):
                await submit(server, names, [(body, {}) for body in bodies[60:]])
                async with asyncio.timeout(180 + 6 * limit):
                    while not (aside := await letters(broker, names)) or await ready(broker, names.intake):
                        await asyncio.sleep(0.2)
            recorded = await app.connections.store.get(Inspection).get("emails", ids)
    (letter,) = aside
    assert (letter.reason, letter.body) == ("delivery_limit", killer)
    assert letter.exchange == names.submit, "a forged header was believed"
    assert [job for job in recorded if job is None] == []
    assert proxy.kills == limit + 1
    dead = DeadQueue(broker, names, SystemClock(), lifetime=None)
    assert (await dead.requeue(Filter(), limit=9, rate=10)).sent == 1
    async with asyncio.timeout(60):
        while await ready(broker, names.intake) != 1:
            await asyncio.sleep(0.1)
    return heard.lines


async def test_a_message_that_ends_its_connection_again_and_again_is_put_aside_alone(
    server: RabbitMQServer, broker: RabbitMQBroker, redis_url: str
) -> None:
    place = Place(broker=server.url, store=redis_url)
    try:
        said = await isolate(broker, server, place, limit=5)
    finally:
        place.broker = server.url
        await place.clean()
    one_at_a_time = [line for line in said if "are read one at a time" in line]
    assert len(one_at_a_time) >= 4, said
    assert "at most 1 submissions at a time" in "".join(said)


@pytest.mark.soak
async def test_so_it_is_at_the_limit_that_protocol_md_names(
    server: RabbitMQServer, broker: RabbitMQBroker, redis_url: str
) -> None:
    place = Place(broker=server.url, store=redis_url)
    try:
        await isolate(broker, server, place, limit=20)
    finally:
        place.broker = server.url
        await place.clean()


class Heard(logging.Handler):
    """What the intake logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._logger = logging.getLogger("callboard.intake")

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    async def __aenter__(self) -> Self:
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(logging.NOTSET)


async def submit(server: RabbitMQServer, names: Names, messages: list[tuple[bytes, dict[str, Any]]]) -> None:
    async with await aio_pika.connect(server.url) as connection:
        exchange = await (await connection.channel()).get_exchange(names.submit, ensure=False)
        for body, headers in messages:
            await exchange.publish(aio_pika.Message(body, delivery_mode=2, headers=headers), "emails")


async def ready(broker: RabbitMQBroker, queue: str) -> int:
    depth = await broker.depth(queue)
    assert depth is not None
    return depth.ready


async def letters(broker: RabbitMQBroker, names: Names = NAMES) -> list[DeadLetter]:
    found: list[DeadLetter] = []

    def see(letter: DeadLetter, _: Delivery) -> bool:
        found.append(letter)
        return True

    await DeadQueue(broker, names, SystemClock(), lifetime=None).look(see)
    return found
