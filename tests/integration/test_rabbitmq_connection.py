"""RabbitMQ behind a connection that is refused, cut, frozen or blocked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import aiormq
import pytest
from yarl import URL

from callboard.brokers.contract import Depth
from callboard.brokers.errors import BrokerError, BrokerUnavailable, TopologyMismatch
from callboard.brokers.message import Message, Receipt
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.rabbitmq.framing import Frames
from callboard.brokers.rabbitmq.publisher import FORGOTTEN, WINDOW
from callboard.brokers.topology import Exchange, Queue, Topology
from callboard.runtime.testing.broker_stage import Inbox, acknowledge, eventually
from integration.cutting_proxy import CuttingProxy
from integration.redis_private import require
from servers import RabbitMQServer, free_port

# connection.blocked with the reason "low", connection.close and connection.unblocked, as the server sends them.
BLOCKED = b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x3c\x03low\xce"
CLOSED = b"\x01\x00\x00\x00\x00\x00\x11\x00\x0a\x00\x32\x01\x40\x06FORCED\x00\x00\x00\x00\xce"  # 320
UNBLOCKED = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x3d\xce"

Starter = Callable[..., Awaitable[RabbitMQServer]]


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
    with pytest.raises(BrokerUnavailable, match="530 NOT_ALLOWED - vhost nowhere not found"):
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
    other = RabbitMQBroker.from_url(amqp_url, name="other")
    await other.open()
    bench.proxy.mute()
    published = 0
    while published <= WINDOW:  # on the plain path a busy machine gets through few of them in that time
        assert await bench.publish(*(b"x" for _ in range(250)), timeout=0.2) == [Receipt.UNKNOWN] * 250
        depth = await other.depth(bench.queue)
        assert depth is not None
        published = depth.ready
    await other.close()
    bench.proxy.thaw()
    assert await bench.publish(b"y") == [Receipt.CONFIRMED]


async def test_a_channel_replaced_under_late_confirms_says_nothing_of_them(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.proxy.mute()
    for _ in range(FORGOTTEN // 250 + 2):
        assert await bench.publish(*(b"x" for _ in range(250)), timeout=0.1) == [Receipt.UNKNOWN] * 250
    bench.proxy.thaw()
    assert await bench.publish(b"y") == [Receipt.CONFIRMED]
    assert [record.getMessage()[:200] for record in caplog.records if record.name.startswith("aiormq")] == []


async def test_what_comes_back_to_a_publisher_that_has_left_is_not_logged_with_its_body(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.proxy.mute()
    nowhere = Message(exchange="", routing_key=f"{bench.queue}.none", body=b"s3cret")
    assert list(await bench.broker.publish([nowhere], timeout=1)) == [Receipt.UNKNOWN]
    bench.proxy.thaw()
    assert await bench.publish(b"y") == [Receipt.CONFIRMED]
    assert "s3cret" not in caplog.text


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


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[Starter]:
    """Starts a RabbitMQ with the given settings."""
    started: list[RabbitMQServer] = []

    async def start(**settings: str) -> RabbitMQServer:
        server = require(lambda: RabbitMQServer(tmp_path / "rabbitmq", **settings))
        await asyncio.to_thread(server.start)
        started.append(server)
        return server

    yield start
    for server in started:
        await asyncio.to_thread(server.kill)


@asynccontextmanager
async def both(url: str, queue: str) -> AsyncIterator[Sequence[RabbitMQBroker]]:
    """A broker on each path, open, with a queue to publish to."""
    brokers = [RabbitMQBroker.from_url(str(URL(url).update_query(frames=frames)), name=frames) for frames in Frames]
    for broker in brokers:
        await broker.open()
        await broker.declare(Topology(queues=(Queue(queue),)))
    yield brokers
    async with asyncio.timeout(30):
        await asyncio.gather(*(broker.close() for broker in brokers))


async def test_a_real_alarm_never_makes_a_publish_or_a_close_hang_and_ends(own_server: Starter) -> None:
    server = await own_server(vm_memory_high_watermark__absolute="1MB")
    message = Message(exchange="", routing_key="alarm", body=b"1")

    async def is_blocked(broker: RabbitMQBroker) -> None:
        async with asyncio.timeout(20):
            assert await broker.publish([message], timeout=1) == [Receipt.UNKNOWN]
        assert not broker.connected
        assert await broker.depth("alarm") == Depth(ready=0, consumers=0)

    async with both(server.url, "alarm") as brokers:
        await asyncio.gather(*map(is_blocked, brokers))
        async with both(server.url, "alarm") as others:
            await asyncio.gather(*map(is_blocked, others))
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.6")
        for broker in brokers:

            async def connected(broker: RabbitMQBroker = broker) -> bool:
                return broker.connected

            await eventually(connected, True)
            assert await broker.publish([message], timeout=20) == [Receipt.CONFIRMED]


async def test_a_message_too_large_for_the_server_is_refused_and_the_others_go_on(own_server: Starter) -> None:
    server = await own_server(max_message_size="10000")
    async with both(server.url, "large") as brokers:
        large, small = (Message(exchange="", routing_key="large", body=bytes(size)) for size in (10_001, 10_000))
        for broker in brokers:
            assert list(await broker.publish([large], timeout=10)) == [Receipt.REFUSED]
            assert list(await broker.publish([small], timeout=10)) == [Receipt.CONFIRMED]
            assert broker.connected


async def test_bodies_of_megabytes_arrive_whole_between_small_ones(bench: Bench) -> None:
    inbox = Inbox(acknowledge)
    await bench.broker.consume(bench.queue, inbox, prefetch=3)
    huge = Random(1).randbytes(6_000_000)
    assert await bench.publish(b"1", huge, b"2", huge[:3_000_001], b"3") == [Receipt.CONFIRMED] * 5
    await inbox.take(5)
    assert inbox.bodies() == [b"1", huge, b"2", huge[:3_000_001], b"3"]


async def test_heartbeats_keep_idle_and_busy_connections_and_end_silent_ones(amqp_url: str) -> None:
    """aiormq gives a connection up after 6 s without a frame here; on the fast path it does not see most of them."""
    queue = f"beat.{secrets.token_hex(6)}"
    async with (
        CuttingProxy(amqp_url) as proxy,
        both(f"{proxy.url}?heartbeat=1", queue) as idle,
        both(f"{amqp_url}?heartbeat=1", queue) as busy,
    ):
        changes: list[bool] = []
        for broker in (*idle, *busy):
            broker.watch(changes.append)
        for broker in busy:
            await broker.consume(queue, acknowledge, prefetch=10)
        until = asyncio.get_running_loop().time() + 8
        while asyncio.get_running_loop().time() < until:
            for broker in busy:
                message = Message(exchange="", routing_key=queue, body=b"x")
                assert await broker.publish([message] * 3, timeout=10) == [Receipt.CONFIRMED] * 3
            await asyncio.sleep(0.05)
        assert changes == []
        proxy.freeze()
        for broker in idle:

            async def connected(broker: RabbitMQBroker = broker) -> bool:
                return broker.connected

            await eventually(connected, False)
        proxy.thaw()
        await busy[0].delete(queue)


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


# What is logged


async def test_a_lost_connection_is_one_line_with_the_reason(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.proxy.cut()
    await bench.connected(False)
    bench.proxy.mend()
    await bench.connected(True)
    bench.proxy.inject(CLOSED)
    await bench.connected(False)
    await bench.connected(True)
    records = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR", "CRITICAL")]
    lost = [record.getMessage() for record in records if "was lost" in record.getMessage()]
    assert len(lost) == 4  # two connections, twice
    assert all("unexpectedly closed" in line for line in lost[:2])
    assert all("the server closed it: 320 FORCED" in line for line in lost[2:])
    assert [record for record in records if record.exc_info or record.name.startswith("aiormq")] == []


async def test_other_users_of_aiormq_hear_all_of_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    connection = await aiormq.connect(bench.proxy.url)
    bench.proxy.cut()
    await bench.connected(False)
    with pytest.raises(aiormq.AMQPConnectionError):
        await asyncio.wait_for(connection.closing, 20)
    heard = [record for record in caplog.records if record.name == "aiormq.connection"]
    assert ["reader exited abnormally" in record.getMessage() and bool(record.exc_info) for record in heard] == [True]


# Versions


async def test_with_an_unknown_version_of_aiormq_it_speaks_plainly_and_says_so_once(
    amqp_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = RabbitMQBroker(amqp_url, name="unknown", installed=lambda package: "99.1")
    await broker.open()
    queue = f"unknown.{secrets.token_hex(6)}"
    await broker.declare(Topology(queues=(Queue(queue, exclusive=True),)))
    inbox = Inbox(acknowledge)
    await broker.consume(queue, inbox, prefetch=10)
    message = Message(exchange="", routing_key=queue, body=b"1")
    assert await broker.publish([message], timeout=10) == [Receipt.CONFIRMED]
    await inbox.take(1)
    await broker.close()
    assert broker.frames is Frames.PLAIN
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "aiormq 99.1 (tested: >=7.2,<7.3)" in warnings[0]
