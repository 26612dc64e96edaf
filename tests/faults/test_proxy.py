"""Each fault of the proxy, seen from both ends of a connection through it to an echo server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aio_pika
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults.proxy import Conditions, Direction, FrameEnds, Proxy, ProxyThread, Unit

BLACKHOLE = Conditions(blackhole=True)
HEARD_NOTHING_SECONDS = 0.15


@dataclass(slots=True)
class EchoServer:
    """Sends back what it hears, keeps it, and notes how each connection ended."""

    port: int = 0
    heard: bytearray = field(default_factory=bytearray)
    endings: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ending = "end of stream"
        try:
            while data := await reader.read(65_536):
                self.heard += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            ending = "reset"
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.endings.put_nowait(ending)

    async def ending(self) -> str:
        return await asyncio.wait_for(self.endings.get(), 5)


@dataclass(frozen=True, slots=True)
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), 5)

    async def all_until_end(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 5)

    async def hears_nothing(self) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.reader.read(1), HEARD_NOTHING_SECONDS)
            return False
        return True


@pytest.fixture
async def echo() -> AsyncIterator[EchoServer]:
    server = EchoServer()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture
async def proxy(echo: EchoServer) -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    client.send(b"hello")
    assert await client.hear(5) == b"hello"
    yield client
    client.writer.close()
    with contextlib.suppress(ConnectionError):
        await client.writer.wait_closed()


async def test_without_conditions_everything_passes_and_the_end_too(client: Client, echo: EchoServer) -> None:
    data = bytes(range(256)) * 4_000

    client.send(data)

    assert await client.hear(len(data)) == data
    client.writer.write_eof()
    assert await client.all_until_end() == b""
    assert await echo.ending() == "end of stream"


async def test_a_blackhole_to_the_server_holds_requests_back_and_loses_none(
    client: Client, proxy: Proxy, echo: EchoServer
) -> None:
    proxy.to_server = BLACKHOLE
    client.send(b"held")

    assert await client.hears_nothing()
    assert echo.heard == b"hello"
    proxy.heal()
    assert await client.hear(4) == b"held"


async def test_a_blackhole_to_the_client_lets_requests_act_and_holds_replies_back(
    client: Client, proxy: Proxy, echo: EchoServer
) -> None:
    proxy.to_client = BLACKHOLE
    client.send(b"acts")

    assert await client.hears_nothing()
    assert echo.heard == b"helloacts"
    proxy.heal()
    assert await client.hear(4) == b"acts"


async def test_a_blackhole_holds_the_end_of_a_connection_back_too(
    client: Client, proxy: Proxy, echo: EchoServer
) -> None:
    proxy.both_ways(BLACKHOLE)
    client.writer.write_eof()

    assert await client.hears_nothing()
    assert echo.endings.empty()
    proxy.heal()
    assert await echo.ending() == "end of stream"


async def test_a_reset_reaches_both_ends(client: Client, proxy: Proxy, echo: EchoServer) -> None:
    assert proxy.reset() == 1

    with pytest.raises(ConnectionResetError):
        await client.hear(1)
    assert await echo.ending() == "reset"


async def test_a_half_close_ends_one_direction_only(client: Client, proxy: Proxy, echo: EchoServer) -> None:
    assert proxy.half_close(Direction.TO_CLIENT) == 1

    assert await client.all_until_end() == b""
    client.send(b"still heard")
    client.writer.write_eof()
    assert await echo.ending() == "end of stream"
    assert echo.heard == b"hellostill heard"


async def test_a_delay_is_kept_in_each_direction(client: Client, proxy: Proxy) -> None:
    proxy.both_ways(Conditions(delay_seconds=0.1))
    loop = asyncio.get_running_loop()

    began = loop.time()
    client.send(b"late")
    assert await client.hear(4) == b"late"

    assert loop.time() - began >= 0.2


async def test_a_throttle_keeps_to_its_speed_and_can_be_lifted_half_way(client: Client, proxy: Proxy) -> None:
    proxy.to_client = Conditions(bytes_per_second=10_000)
    loop = asyncio.get_running_loop()

    began = loop.time()
    client.send(b"x" * 100_000)
    await client.hear(3_000)

    assert loop.time() - began >= 0.2
    proxy.heal()
    await client.hear(97_000)
    assert loop.time() - began < 5


async def test_a_cut_after_bytes_delivers_exactly_these(client: Client, proxy: Proxy, echo: EchoServer) -> None:
    cut = proxy.cut_after(7, Unit.BYTES, Direction.TO_SERVER)
    client.send(b"four")
    assert await client.hear(4) == b"four"
    assert not cut.done

    client.send(b"and six")

    with pytest.raises(ConnectionResetError):
        await client.hear(1)
    await cut.happened()
    assert await echo.ending() in ("end of stream", "reset")
    assert echo.heard == b"hellofourand"


async def test_a_cut_after_a_write_lets_the_request_act_and_its_reply_be_lost(
    client: Client, proxy: Proxy, echo: EchoServer
) -> None:
    cut = proxy.cut_after(2, Unit.WRITES, Direction.TO_SERVER)
    client.send(b"first")
    assert await client.hear(5) == b"first"

    client.send(b"second")

    with pytest.raises(ConnectionResetError):
        await client.hear(1)
    await cut.happened()
    assert await echo.ending() in ("end of stream", "reset")
    assert echo.heard == b"hellofirstsecond"


async def test_a_cut_happens_once_and_the_next_connection_lives(client: Client, proxy: Proxy) -> None:
    cut = proxy.cut_after(1, Unit.WRITES, Direction.TO_SERVER)
    client.send(b"cut")
    await cut.happened()

    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"alive")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"alive"
    writer.close()
    await writer.wait_closed()


async def test_new_connections_can_be_refused(proxy: Proxy, client: Client) -> None:
    proxy.refusing = True

    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readexactly(1), 5)
    writer.close()
    client.send(b"old ones live")
    assert await client.hear(13) == b"old ones live"


async def test_a_server_that_is_not_there_is_a_reset_for_the_client() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with Proxy("127.0.0.1", unused.getsockname()[1]) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.readexactly(1), 5)
            writer.close()


def frame(size: int) -> bytes:
    return struct.pack(">BHL", 1, 0, size) + b"p" * size + b"\xce"


@pytest.mark.parametrize("piece", [1, 3, 8, 1_000])
def test_frame_ends_are_found_in_pieces_of_any_size(piece: int) -> None:
    stream = b"AMQP\x00\x00\x09\x01" + frame(0) + frame(5) + frame(300)
    splitter = FrameEnds(after_protocol_header=True)

    ends = [
        start + end for start in range(0, len(stream), piece) for end in splitter.feed(stream[start : start + piece])
    ]

    assert ends == [16, 29, 337]


async def test_a_cut_after_a_frame_falls_between_a_delivery_and_its_ack(amqp_url: str) -> None:
    """The next frames to a consumer at rest are a delivery's method, header and body: it gets them, and cannot ack."""
    parameters = aio_pika.connection.make_url(amqp_url)
    async with Proxy(parameters.host or "", parameters.port or 5672) as proxy:
        publisher = await aio_pika.connect(amqp_url)
        consumer = await aio_pika.connect(str(parameters.with_host("127.0.0.1").with_port(proxy.port)))
        async with publisher:
            publishing = await publisher.channel()
            queue = await publishing.declare_queue(f"tests.{uuid.uuid4().hex}")
            deliveries: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
            consuming = await consumer.channel()
            await (await consuming.get_queue(queue.name)).consume(deliveries.put)
            cut = proxy.cut_after(3, Unit.FRAMES, Direction.TO_CLIENT)

            await publishing.default_exchange.publish(aio_pika.Message(b"job"), routing_key=queue.name)

            await asyncio.wait_for(cut.happened(), 5)
            delivered = await asyncio.wait_for(deliveries.get(), 5)
            with contextlib.suppress(aio_pika.exceptions.AMQPError):
                await consumer.close()
            await queue.consume(deliveries.put)
            again = await asyncio.wait_for(deliveries.get(), 5)
            assert delivered.body == again.body == b"job"
            assert (delivered.redelivered, again.redelivered) == (False, True)
            await queue.delete(if_unused=False, if_empty=False)


def test_a_proxy_in_a_thread_serves_code_that_blocks(redis_url: str) -> None:
    target = redis.ConnectionPool.from_url(redis_url).connection_kwargs
    with (
        ProxyThread(target["host"], target["port"]) as thread,
        redis.Redis(port=thread.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as client,
    ):
        assert client.ping()
        assert thread.do(lambda proxy: proxy.connections) == 1

        thread.do(lambda proxy: proxy.both_ways(BLACKHOLE))
        with pytest.raises(redis.TimeoutError):
            client.ping()

        thread.do(lambda proxy: proxy.heal())
        assert client.ping()
        assert thread.do(lambda proxy: proxy.reset()) >= 1
        assert client.ping(), "by a new connection"
