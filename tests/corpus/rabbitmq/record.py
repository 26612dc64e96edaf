"""Records the corpus: what RabbitMQ and aiormq say to each other, byte by byte, and what pamqp understands of it.

    PYTHONPATH=tests python tests/corpus/rabbitmq/record.py

It starts a RabbitMQ of its own, plays each scene through a proxy that keeps the bytes of both directions, and writes
<scene>.json beside this file. Frames are in hexadecimal, one a line, as they came; `expected` is told by pamqp, which
is not what reads them in the tests. Record anew when the versions in brokers/rabbitmq/framing.py are to be raised.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp import commands
from pamqp.commands import Basic
from yarl import URL

from corpus.rabbitmq.reading import expected_of, frames_in
from integration.raw_amqp import KILLERS, ODD, RawPublisher, table, text
from servers import RabbitMQServer

HERE = Path(__file__).parent
FRAME_MAX = 4096  # the least that AMQP allows: so small bodies are split too
HEARTBEAT_SECONDS = 1
SCENE_SECONDS = 60.0

EVERY_TYPE: dict[str, Any] = {
    "bool": True,
    "int": 7,
    "negative": -7,
    "long": 2**40,
    "float": 0.5,
    "text": "ä",
    "empty": "",
    "bytes": bytearray(b"\x00\xff"),
    "decimal": Decimal("3.14"),
    "moment": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "table": {"inner": {"deeper": 1}},
    "array": [1, "two", [3], {"four": 4}, None],
    "none": None,
}
# What pamqp does not write but reads: (name, type and value).
FOREIGN_TYPES: dict[str, bytes] = {
    "b signed octet": b"b\xff",
    "B octet": b"B\xff",
    "s signed short": b"s\xff\xfe",
    "u short": b"u\xff\xfe",
    "I signed int": b"I\xff\xff\xff\xfe",
    "i int": b"i\xff\xff\xff\xfe",
    "l signed long": b"l\xff\xff\xff\xff\xff\xff\xff\xfe",
    "f float": b"f" + struct.pack(">f", 0.5),
    "d double": b"d" + struct.pack(">d", 0.25),
    "x bytes": b"x" + table(b"\x00\xff"),
}


class Recorder:
    """A proxy for one connection; `server` and `client` are what each has said."""

    def __init__(self, url: URL) -> None:
        self._target = url
        self.server = bytearray()
        self.client = bytearray()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Recorder:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = str(self._target.with_port(port).with_query(heartbeat=HEARTBEAT_SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self._tasks += [
            asyncio.create_task(self._carry(reader, onward_writer, self.client)),
            asyncio.create_task(self._carry(onward_reader, writer, self.server)),
        ]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        try:
            while data := await reader.read(65_536):
                kept += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()


class SmallFrames(aiormq.Connection):
    """A connection that asks for FRAME_MAX."""

    @staticmethod
    async def _rpc(request: Any, writer: Any, frame_receiver: Any, wait_response: bool = True) -> Any:
        if isinstance(request, commands.Connection.TuneOk):
            request.frame_max = FRAME_MAX
        answer = await aiormq.Connection._rpc(request, writer, frame_receiver, wait_response)
        if isinstance(answer, commands.Connection.Tune):
            answer.frame_max = FRAME_MAX
        return answer


class Stage:
    def __init__(self, server: RabbitMQServer, connection: aiormq.Connection, channel: AbstractChannel) -> None:
        self.server = server
        self.connection = connection
        self.channel = channel
        self.arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()

    async def queue(self, name: str, **arguments: Any) -> str:
        await self.channel.queue_declare(name, durable=True, arguments=arguments or None)
        return name

    async def consume(self, queue: str, **options: Any) -> None:
        await self.channel.basic_consume(queue, self.arrived.put, consumer_tag="corpus.consumer", **options)

    async def publish(self, body: bytes, key: str, *, exchange: str = "", **properties: Any) -> None:
        given = {"content_type": "application/json", "delivery_mode": 2, "message_id": "corpus-1", **properties}
        await self.channel.basic_publish(
            body, exchange=exchange, routing_key=key, mandatory=True, properties=Basic.Properties(**given)
        )

    async def take(self, messages: int) -> list[DeliveredMessage]:
        return [await asyncio.wait_for(self.arrived.get(), 20) for _ in range(messages)]


Scene = Callable[[Stage], Awaitable[None]]


async def deliveries(stage: Stage) -> None:
    """Every property and every type of header that pamqp writes; none at all; bodies of all lengths; a redelivery."""
    queue = await stage.queue("deliveries")
    await stage.publish(b"plain", queue)
    await stage.publish(
        b"everything",
        queue,
        content_encoding="utf-8",
        headers=EVERY_TYPE,
        priority=9,
        correlation_id="correlation ä",
        reply_to="reply.queue",
        expiration="600000",
        timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        message_type="type",
        user_id="guest",
        app_id="application",
    )
    await stage.publish(b"nothing", queue, content_type=None, delivery_mode=None, message_id=None)
    for size in (0, 1, FRAME_MAX - 8, FRAME_MAX - 7, 9_000):
        await stage.publish(bytes(index % 251 for index in range(size)), queue)
    await stage.consume(queue)
    messages = await stage.take(8)
    await stage.channel.basic_nack(messages[0].delivery_tag or 0, requeue=True)
    again = await stage.take(1)
    await stage.channel.basic_ack(messages[4].delivery_tag or 0, multiple=False)
    await stage.channel.basic_reject(messages[5].delivery_tag or 0, requeue=False)
    await stage.channel.basic_ack(again[0].delivery_tag or 0, multiple=True)


async def foreign(stage: Stage) -> None:
    """What other clients write: the other types of headers, bytes that are not UTF-8, headers that nobody can read."""
    queue = await stage.queue("foreign")
    await stage.channel.exchange_declare("foreign.topic", exchange_type="topic")
    await stage.channel.queue_bind(queue, "foreign.topic", "#")
    fields = b"".join(text(name.encode()) + value for name, value in FOREIGN_TYPES.items())
    async with RawPublisher(stage.server.url) as raw:
        await raw.publish(queue, b"types", flags=1 << 13, properties=table(fields))
        await raw.publish(queue, b"cluster", flags=1 << 2, properties=text(b"cluster"))  # pamqp writes none
        for name, (flags, properties) in (KILLERS | ODD).items():
            if "5000" not in name:  # too long for a corpus; tests/integration/test_rabbitmq_poison.py sends them
                await raw.publish(queue, name.encode(), flags=flags, properties=properties)
    messages = 2 + sum("5000" not in name for name in (KILLERS | ODD))
    await tolerantly(stage, queue, messages)


async def names(stage: Stage) -> None:
    """A routing key that is not UTF-8, a long one, an empty one."""
    queue = await stage.queue("names")
    await stage.channel.exchange_declare("names.topic", exchange_type="topic")
    await stage.channel.queue_bind(queue, "names.topic", "#")
    async with RawPublisher(stage.server.url) as raw:
        for key in (b"\xff\xfe.key", b"k" * 255, b"", "schlüssel".encode()):
            await raw.publish_named("names.topic", key, b"body")
    await tolerantly(stage, queue, 4)


async def tolerantly(stage: Stage, queue: str, messages: int) -> None:
    """aiormq ends at what it cannot read; the bytes are on the wire all the same."""
    await stage.channel.basic_qos(prefetch_count=messages)
    await stage.channel.basic_consume(queue, stage.arrived.put, consumer_tag="corpus.consumer")
    await asyncio.sleep(1.0)


async def returns(stage: Stage) -> None:
    """Mandatory messages without a queue, between others; one of them large."""
    queue = await stage.queue("returns")
    for number, (key, body) in enumerate((("nowhere", b"1"), (queue, b"2"), ("nowhere", bytes(4100)), (queue, b""))):
        try:
            await stage.publish(body, key, message_id=f"corpus-{number}")
        except aiormq.PublishError:
            continue


async def confirms(stage: Stage) -> None:
    """Confirms of one and of many; refusals by a queue that is full."""
    queue = await stage.queue("confirms")
    full = await stage.queue("full", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    results = await asyncio.gather(
        *(stage.publish(b"%d" % number, queue, message_id=f"c-{number}") for number in range(60)),
        *(stage.publish(b"%d" % number, full, message_id=f"f-{number}") for number in range(10)),
        return_exceptions=True,
    )
    assert any(isinstance(result, aiormq.DeliveryError) for result in results)


async def flow(stage: Stage) -> None:
    """channel.flow, answered; RabbitMQ sends none by itself."""
    queue = await stage.queue("flow")
    await stage.consume(queue)
    await stage.publish(b"before", queue)
    assert isinstance(stage.channel, aiormq.Channel)
    await stage.channel.flow(True)
    await stage.publish(b"behind", queue)
    await stage.take(2)


async def heartbeats(stage: Stage) -> None:
    """Heartbeats of the server between deliveries."""
    queue = await stage.queue("heartbeats")
    await stage.consume(queue)
    for number in range(3):
        await stage.publish(b"%d" % number, queue)
        await stage.take(1)
        await asyncio.sleep(1.1)


async def cancelled(stage: Stage) -> None:
    """The server cancels a consumer: its queue is deleted."""
    queue = await stage.queue("cancelled")
    await stage.consume(queue)
    await stage.publish(b"1", queue)
    await stage.take(1)
    await (await stage.connection.channel()).queue_delete(queue)
    await asyncio.sleep(0.2)


async def closed_404(stage: Stage) -> None:
    """The server closes a channel: there is no such exchange."""
    try:
        await stage.publish(b"1", "key", exchange="missing")
    except aiormq.AMQPError:
        return


async def closed_406(stage: Stage) -> None:
    """The server closes a channel: an unknown delivery tag."""
    queue = await stage.queue("closed")
    await stage.consume(queue)
    await stage.publish(b"1", queue)
    await stage.take(1)
    await stage.channel.basic_ack(77)
    await asyncio.sleep(0.3)


async def blocked(stage: Stage) -> None:
    """An alarm blocks the connection once it publishes, and ends."""
    queue = await stage.queue("blocked")
    await stage.publish(b"1", queue)
    await asyncio.to_thread(stage.server.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    publishing = asyncio.create_task(stage.publish(b"2", queue))
    await asyncio.sleep(2.0)
    await asyncio.to_thread(stage.server.ctl, "set_vm_memory_high_watermark", "0.6")
    await asyncio.wait_for(publishing, 20)


async def connection_closed(stage: Stage) -> None:
    """An operator closes every connection."""
    await asyncio.to_thread(stage.server.ctl, "close_all_connections", "maintenance")
    await asyncio.sleep(0.5)


SCENES: tuple[Scene, ...] = (
    deliveries,
    foreign,
    names,
    returns,
    confirms,
    flow,
    heartbeats,
    cancelled,
    closed_404,
    closed_406,
    blocked,
    connection_closed,
)


async def record(server: RabbitMQServer, scene: Scene) -> dict[str, Any]:
    async with Recorder(URL(server.url)) as recorder:
        connection = SmallFrames(recorder.url)
        await connection.connect()
        channel = await connection.channel(publisher_confirms=True)
        begin_server, begin_client = len(recorder.server), len(recorder.client)
        async with asyncio.timeout(SCENE_SECONDS):
            await scene(Stage(server, connection, channel))
        await asyncio.sleep(0.2)
        said, heard = bytes(recorder.server[begin_server:]), bytes(recorder.client[begin_client:])
        await connection.close()
    about = " ".join((scene.__doc__ or "").split())
    recorded = {package: version(package) for package in ("aio-pika", "aiormq", "pamqp")}
    recorded["rabbitmq"] = server.ctl("version").strip()
    return {
        "about": about,
        "recorded": recorded,
        "frame_max": FRAME_MAX,
        "channel": channel.number,
        "expected": expected_of(said, channel.number),
        "server": [frame.hex() for frame in frames_in(said)],
        "client": [frame.hex() for frame in frames_in(heard)],
    }


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, RabbitMQServer(Path(folder)) as server:
        for scene in SCENES:
            recorded = await record(server, scene)
            path = HERE / f"{scene.__name__}.json"
            path.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
            print(f"{path.name}: {len(recorded['expected'])} events, {path.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())
