"""RabbitMQ behind a connection that is refused, cut, frozen or blocked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from random import Random

import aiormq
import pytest
from yarl import URL

from callboard.brokers.contract import Depth
from callboard.brokers.errors import BrokerError, BrokerUnavailable, TopologyMismatch
from callboard.brokers.message import Message, Receipt
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.rabbitmq.publisher import WINDOW
from callboard.brokers.topology import Exchange, Queue, Topology
from callboard.runtime.testing.broker_stage import Inbox, acknowledge, eventually
from integration.cutting_proxy import CuttingProxy
from servers import ProgramMissing, RabbitMQServer, free_port

# connection.blocked with the reason "low" and connection.unblocked, as the server sends them.
BLOCKED = b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x3c\x03low\xce"
UNBLOCKED = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x3d\xce"


class Bench:
    """A broker behind a proxy, with one queue; messages go to it by the default exchange."""

    def __init__(self, broker: RabbitMQBroker, proxy: CuttingProxy, queue: str, *, plain: bool) -> None:
        self.broker = broker
        self.plain = plain
        self.proxy = proxy
        self.queue = queue

    def message(self, body: bytes) -> Message:
        return Message(exchange="", routing_key=self.queue, body=body)

    async def publish(self, *bodies: bytes, timeout: float = 20) -> list[Receipt]:
        return list(await self.broker.publish([self.message(body) for body in bodies], timeout=timeout))

    async def connected(self, wanted: bool) -> None:
        async def state() -> bool:
            return self.broker.connected

        await eventually(state, wanted)


@pytest.fixture(params=["fast", "plain"])
async def bench(request: pytest.FixtureRequest, amqp_url: str) -> AsyncIterator[Bench]:
    queue = f"cut.{secrets.token_hex(6)}"
    async with CuttingProxy(amqp_url) as proxy:
        broker = RabbitMQBroker(f"{proxy.url}?frames={request.param}", name="cut", random=Random(1))
        await broker.open()
        await broker.declare(Topology(queues=(Queue(queue),)))
        yield Bench(broker, proxy, queue, plain=request.param == "plain")
        proxy.thaw()
        proxy.mend()
        await broker.close()
        connection = await aiormq.connect(amqp_url)
        await (await connection.channel()).queue_delete(queue)
        await connection.close()


# Opening


async def test_a_wrong_password_is_said_at_once_and_never_shown(amqp_url: str) -> None:
    broker = RabbitMQBroker.from_url(str(URL(amqp_url).with_password("s3cret")), name="wrong")
    with pytest.raises(BrokerUnavailable, match=r"refuses the credentials.*ACCESS_REFUSED") as raised:
        await broker.open()
    assert "s3cret" not in f"{raised.value} {raised.value!r} {broker!r}"
    assert not broker.connected


async def test_nobody_listening_is_said_at_once_with_the_address() -> None:
    port = free_port()
    broker = RabbitMQBroker.from_url(f"amqp://guest:s3cret@127.0.0.1:{port}/", name="nobody")
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}") as raised:
        await broker.open()
    assert "s3cret" not in str(raised.value)


async def test_a_missing_virtual_host_is_said_at_once(amqp_url: str) -> None:
    broker = RabbitMQBroker.from_url(str(URL(amqp_url).with_path("/nowhere")), name="nowhere")
    with pytest.raises(BrokerUnavailable, match="nowhere"):
        await broker.open()


@pytest.mark.parametrize("url", ["redis://u:s3cret@host/", "amqp://u:s3cret@host:port/", "s3cret"])
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(BrokerError) as raised:
        RabbitMQBroker.from_url(url, name="url")
    assert "s3cret" not in str(raised.value)


async def test_the_servers_version_is_known(bench: Bench) -> None:
    assert int(bench.broker.version.split(".")[0]) >= 3


# Publishing


async def test_a_cut_in_the_middle_leaves_the_rest_unknown_and_loses_nothing_confirmed(bench: Bench) -> None:
    publishes = [
        asyncio.create_task(bench.publish(*(b"%d.%d" % (task, number) for number in range(2000)))) for task in range(5)
    ]
    inbox = Inbox(acknowledge)
    await bench.broker.consume(bench.queue, inbox, prefetch=50)
    await inbox.take(500)
    bench.proxy.cut()
    receipts = [receipt for publish in publishes for receipt in await publish]
    assert {Receipt.CONFIRMED, Receipt.UNKNOWN} == set(receipts)
    bench.proxy.mend()
    await bench.connected(True)

    async def all_confirmed_arrived() -> bool:
        return len(set(inbox.bodies())) >= receipts.count(Receipt.CONFIRMED)

    await eventually(all_confirmed_arrived, True)
    await eventually(lambda: bench.broker.depth(bench.queue), Depth(ready=0, consumers=1))
    confirmed = {
        b"%d.%d" % (index // 2000, index % 2000)
        for index, receipt in enumerate(receipts)
        if receipt == Receipt.CONFIRMED
    }
    assert confirmed <= set(inbox.bodies())


async def test_a_frozen_connection_times_out_as_unknown_and_goes_on_when_it_thaws(bench: Bench) -> None:
    bench.proxy.freeze()
    for _ in range(3):  # more than the window holds
        assert await bench.publish(*(b"x" for _ in range(200)), timeout=0.1) == [Receipt.UNKNOWN] * 200
    bench.proxy.thaw()
    for _ in range(3):
        assert await bench.publish(*(b"y" for _ in range(200))) == [Receipt.CONFIRMED] * 200
    assert bench.broker.connected


async def test_publishes_that_were_given_up_leave_their_place_to_later_ones(bench: Bench, amqp_url: str) -> None:
    bench.proxy.mute()
    for _ in range(4):
        assert await bench.publish(*(b"x" for _ in range(250)), timeout=0.2) == [Receipt.UNKNOWN] * 250
    other = RabbitMQBroker.from_url(amqp_url, name="other")
    await other.open()

    async def more_than_the_window_holds() -> bool:
        depth = await other.depth(bench.queue)
        return depth is not None and depth.ready > WINDOW

    await eventually(more_than_the_window_holds, True)
    await other.close()
    bench.proxy.thaw()
    assert await bench.publish(b"y") == [Receipt.CONFIRMED]


async def test_an_alarm_makes_it_disconnected_and_publishes_unknown_until_it_ends(bench: Bench) -> None:
    changes: list[bool] = []
    bench.broker.watch(changes.append)
    bench.proxy.inject(BLOCKED)
    await bench.connected(False)
    async with asyncio.timeout(1):
        assert await bench.publish(b"1", timeout=60) == [Receipt.UNKNOWN]
    bench.proxy.inject(UNBLOCKED)
    await bench.connected(True)
    assert await bench.publish(b"2") == [Receipt.CONFIRMED]
    assert changes == [False, True]


async def test_a_real_alarm_never_makes_a_publish_hang(tmp_path: Path) -> None:
    server = RabbitMQServer(tmp_path / "rabbitmq", vm_memory_high_watermark__absolute="1MB")
    try:
        await asyncio.to_thread(server.start)
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    try:
        broker = RabbitMQBroker.from_url(server.url, name="alarm")
        await broker.open()
        await broker.declare(Topology(queues=(Queue("alarm"),)))
        message = Message(exchange="", routing_key="alarm", body=b"1")
        async with asyncio.timeout(5):
            assert await broker.publish([message], timeout=1) == [Receipt.UNKNOWN]
        assert not broker.connected
        assert await broker.depth("alarm") == Depth(ready=0, consumers=0)
        async with asyncio.timeout(15):
            await broker.close()
    finally:
        await asyncio.to_thread(server.kill)


async def test_a_message_too_large_for_the_server_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    server = RabbitMQServer(tmp_path / "rabbitmq", max_message_size="10000")
    try:
        await asyncio.to_thread(server.start)
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    try:
        broker = RabbitMQBroker.from_url(server.url, name="large")
        await broker.open()
        await broker.declare(Topology(queues=(Queue("large"),)))
        large, small = (Message(exchange="", routing_key="large", body=bytes(size)) for size in (10_001, 10_000))
        assert list(await broker.publish([large], timeout=10)) == [Receipt.REFUSED]
        assert list(await broker.publish([small], timeout=10)) == [Receipt.CONFIRMED]
        assert broker.connected
        await broker.close()
    finally:
        await asyncio.to_thread(server.kill)


async def test_thousands_of_messages_by_two_publishers_arrive_once_each(bench: Bench) -> None:
    each = 1000 if bench.plain else 10_000
    inbox = Inbox(acknowledge)
    consumer = await bench.broker.consume(bench.queue, inbox, prefetch=200)

    async def publish(publisher: int) -> None:
        for start in range(0, each, 500):
            bodies = [b"%d.%d" % (publisher, number) for number in range(start, start + 500)]
            assert await bench.publish(*bodies) == [Receipt.CONFIRMED] * 500

    await asyncio.gather(publish(0), publish(1))
    await inbox.take(2 * each)
    await consumer.cancel()
    assert await bench.broker.depth(bench.queue) == Depth(ready=0, consumers=0)
    assert len(inbox.received) == 2 * each
    assert len(set(inbox.bodies())) == 2 * each
    for publisher in range(2):
        own = [body for body in inbox.bodies() if body.startswith(b"%d." % publisher)]
        assert own == [b"%d.%d" % (publisher, number) for number in range(each)]


# Consuming


async def test_a_cut_while_consuming_brings_everything_unsettled_again_and_stale_settling_does_nothing(
    bench: Bench,
) -> None:
    inbox = Inbox()
    consumer = await bench.broker.consume(bench.queue, inbox, prefetch=100)
    await bench.publish(*(b"%d" % number for number in range(300)))
    stale = list(await inbox.take(100))
    for delivery in stale[:40]:
        delivery.ack()
    await bench.publish(b"last")  # a round trip: the acks before it are on their way
    await inbox.take(140)
    bench.proxy.cut()
    await bench.connected(False)
    assert all(delivery.lost for delivery in inbox.received)
    bench.proxy.mend()
    await bench.connected(True)
    await inbox.take(240)
    for delivery in inbox.received[:140]:
        delivery.ack()
    await bench.publish(b"very last")
    fresh = inbox.received[140:]
    assert len(fresh) == 100
    assert consumer.active
    for delivery in fresh:
        delivery.ack()
    await inbox.take(340)


async def test_what_was_acknowledged_before_the_cut_does_not_come_again(bench: Bench) -> None:
    inbox = Inbox(acknowledge)
    await bench.broker.consume(bench.queue, inbox, prefetch=10)
    await bench.publish(*(b"%d" % number for number in range(100)))
    await inbox.take(100)
    # The acknowledgements of a consumer are read before its next question is.
    await eventually(lambda: bench.broker.depth(bench.queue), Depth(ready=0, consumers=1))
    bench.proxy.cut()
    await bench.connected(False)
    bench.proxy.mend()
    await bench.connected(True)
    await bench.publish(b"after")
    await inbox.take(101)
    assert inbox.bodies() == [*(b"%d" % number for number in range(100)), b"after"]


# Topology


async def test_declaring_the_same_again_makes_no_round_trip(bench: Bench) -> None:
    topology = Topology(queues=(Queue(bench.queue),))
    sent = bench.proxy.carried
    for _ in range(50):
        await bench.broker.declare(topology)
    assert bench.proxy.carried == sent
    await bench.broker.redeclare(topology)
    assert bench.proxy.carried > sent


async def test_what_is_declared_at_any_moment_of_a_reconnect_is_there_afterwards(bench: Bench) -> None:
    bench.proxy.cut()
    await bench.connected(False)
    bench.proxy.mend()
    names = []
    while not bench.broker.connected:
        names.append(f"{bench.queue}.{len(names)}")
        with suppress(BrokerUnavailable):
            await bench.broker.declare(Topology(queues=(Queue(names[-1], exclusive=True),)))
        await asyncio.sleep(0.002)
    for name in names:
        assert await bench.broker.depth(name) == Depth(ready=0, consumers=0)


async def test_a_remembered_topology_that_no_longer_fits_does_not_stop_the_others_or_the_connection(
    bench: Bench, amqp_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = f"{bench.queue}.exchange"
    await bench.broker.declare(Topology(exchanges=(Exchange(exchange, "topic"),)))
    connection = await aiormq.connect(amqp_url)
    channel = await connection.channel()
    await channel.exchange_delete(exchange)
    await channel.exchange_declare(exchange, exchange_type="direct", durable=True)
    bench.proxy.cut()
    await bench.connected(False)
    bench.proxy.mend()
    before = bench.proxy.accepted
    await bench.connected(True)
    assert "inequivalent arg 'type'" in caplog.text
    assert bench.proxy.accepted <= before + 2
    assert await bench.publish(b"1") == [Receipt.CONFIRMED]
    with pytest.raises(TopologyMismatch, match=r"'topic'.*'direct'"):
        await bench.broker.redeclare(Topology(exchanges=(Exchange(exchange, "topic"),)))
    await channel.exchange_delete(exchange)
    await connection.close()


async def test_an_exclusive_consumer_of_another_connection_is_waited_for_after_a_reconnect(
    bench: Bench, amqp_url: str
) -> None:
    inbox = Inbox(acknowledge)
    consumer = await bench.broker.consume(bench.queue, inbox, prefetch=1, exclusive=True)
    bench.proxy.cut()
    await bench.connected(False)
    other = RabbitMQBroker.from_url(amqp_url, name="other")
    await other.open()

    async def taken() -> bool:  # the server notices a cut connection a moment later
        try:
            await other.consume(bench.queue, Inbox(), prefetch=1, exclusive=True)
        except BrokerError:
            return False
        return True

    await eventually(taken, True)
    bench.proxy.mend()
    await bench.connected(True)
    assert not consumer.active
    await other.close()

    async def active() -> bool:
        return consumer.active

    await eventually(active, True)
    await bench.publish(b"1")
    await inbox.take(1)
