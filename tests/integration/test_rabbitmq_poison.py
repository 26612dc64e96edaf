"""What others put into a message's properties must not close our connection: it would be delivered for ever."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import aiormq
import pamqp.frame
import pytest

from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.topology import Binding, Exchange, Queue, Topology
from callboard.runtime.testing.broker_stage import Inbox, acknowledge
from integration.raw_amqp import KILLERS, ODD, RawPublisher


@pytest.fixture(params=["fast", "plain"])
async def broker(request: pytest.FixtureRequest, amqp_url: str) -> AsyncIterator[RabbitMQBroker]:
    broker = RabbitMQBroker.from_url(f"{amqp_url}?frames={request.param}", name="poison")
    await broker.open()
    yield broker
    await broker.close()


@pytest.fixture
async def queue(broker: RabbitMQBroker) -> str:
    name = f"poison.{secrets.token_hex(6)}"
    await broker.declare(Topology(queues=(Queue(name, exclusive=True),)))
    return name


@pytest.mark.parametrize("kind", [*KILLERS, *ODD])
async def test_between_good_messages_each_bad_one_arrives_and_the_connection_stays(
    broker: RabbitMQBroker, queue: str, amqp_url: str, kind: str
) -> None:
    changes: list[bool] = []
    broker.watch(changes.append)
    inbox = Inbox(acknowledge)
    consumer = await broker.consume(queue, inbox, prefetch=5)
    flags, properties = (KILLERS | ODD)[kind]
    async with RawPublisher(amqp_url) as raw:
        for _ in range(3):
            await raw.publish(queue, b"good", flags=0, properties=b"")
            await raw.publish(queue, b"bad", flags=flags, properties=properties)
    await inbox.take(6)
    assert inbox.bodies() == [b"good", b"bad"] * 3
    assert changes == []
    assert consumer.active
    for delivery in inbox.received:
        assert ("x-undecodable" in delivery.headers) == (delivery.body == b"bad" and kind in KILLERS)
        if "x-undecodable" in delivery.headers:
            assert 0 < len(delivery.headers["x-undecodable"]) <= 200
            assert (delivery.message_id, delivery.content_type) == (None, None)


async def test_a_routing_key_that_is_not_utf8_arrives_with_replacements(
    broker: RabbitMQBroker, queue: str, amqp_url: str
) -> None:
    changes: list[bool] = []
    broker.watch(changes.append)
    exchange = Exchange(f"{queue}.topic", "topic")
    await broker.declare(Topology(exchanges=(exchange,), bindings=(Binding(queue, exchange.name, "#"),)))
    inbox = Inbox(acknowledge)
    await broker.consume(queue, inbox, prefetch=5)
    keys = (b"\xff\xfe.key", b"\xff" * 255, "schlüssel".encode())
    async with RawPublisher(amqp_url) as raw:
        for key in keys:
            await raw.publish_named(exchange.name, key, b"body")
    deliveries = await inbox.take(3)
    assert deliveries[0].routing_key == "\ufffd\ufffd.key"
    assert set(deliveries[1].routing_key) == {"\ufffd"}
    assert deliveries[2].routing_key == "schlüssel"
    assert changes == []
    connection = await aiormq.connect(amqp_url)
    await (await connection.channel()).exchange_delete(exchange.name)
    await connection.close()


async def test_a_plain_aio_pika_consumer_in_the_same_process_is_not_affected(broker: RabbitMQBroker) -> None:
    assert pamqp.frame.unmarshal.__module__ == "pamqp.frame"


async def test_a_table_of_thousands_of_fields_does_not_hold_the_loop(
    broker: RabbitMQBroker, queue: str, amqp_url: str
) -> None:
    inbox = Inbox(acknowledge)
    await broker.consume(queue, inbox, prefetch=5)
    fields = b"".join(b"\x05%05db\x01" % number for number in range(14_000))
    async with RawPublisher(amqp_url) as raw:
        await raw.publish(queue, b"bad", flags=1 << 13, properties=len(fields).to_bytes(4, "big") + fields)
    delivery = (await inbox.take(1))[0]
    assert "the limit is" in delivery.headers["x-undecodable"]
