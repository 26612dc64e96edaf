"""A TCP proxy that does to a connection what networks do: hold back, delay, slow down, cut at a chosen place.

    async with Proxy("127.0.0.1", 5672) as proxy:
        ... connect to 127.0.0.1:proxy.port ...
        proxy.to_client = Conditions(blackhole=True)          # the server's answers no longer arrive
        proxy.to_client = Conditions()                        # and now they do, none missing
        cut = proxy.cut_after(1, Unit.FRAMES, Direction.TO_CLIENT)
        await cut.happened()                                  # between that delivery and its ack

Conditions hold for every connection, present and future. A proxy lives in one event loop; `ProxyThread` gives it a
thread of its own, for tests whose loop is busy or whose code blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self, TypeVar

CHUNK_BYTES = 65_536
SLICES_A_SECOND = 20  # of a throttled direction
THREAD_SECONDS = 10.0

Result = TypeVar("Result")


class Direction(Enum):
    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Unit(Enum):
    """What `cut_after` counts. WRITES are chunks as they come in: one for each `write` of a peer that waits between."""

    BYTES = "bytes"
    FRAMES = "frames"  # of AMQP 0-9-1; its protocol header counts for none
    WRITES = "writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Of one direction. `blackhole` holds back what comes, its end included, until it is lifted, as TCP would have it
    after lost packets. `delay_seconds` is the least that a byte takes, twice that the most.
    """

    blackhole: bool = False
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None


class Cut:
    """One cut that waits for its moment: the connection on which the count is reached first, counted from now on.

    The unit that completes the count is still delivered; its receiver then sees the end of the stream, the other side
    a reset.
    """

    def __init__(self, count: int, unit: Unit, direction: Direction) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        self.count = count
        self.unit = unit
        self.direction = direction
        self._seen: dict[object, int] = {}
        self._happened = asyncio.Event()

    async def happened(self) -> None:
        """Wait until the connection has been cut."""
        await self._happened.wait()

    @property
    def done(self) -> bool:
        return self._happened.is_set()

    def place(self, link: object, data: bytes, frame_ends: list[int]) -> int | None:
        """How much of `data`, just come in on `link`, to deliver before the cut; None: the cut is not in it."""
        ends: Sequence[int]
        match self.unit:
            case Unit.BYTES:
                ends = range(1, len(data) + 1)
            case Unit.FRAMES:
                ends = frame_ends
            case Unit.WRITES:
                ends = [len(data)]
        missing = self.count - self._seen.get(link, 0)
        self._seen[link] = self._seen.get(link, 0) + len(ends)
        return ends[missing - 1] if len(ends) >= missing else None

    def report(self) -> None:
        self._happened.set()


class FrameEnds:
    """Where AMQP 0-9-1 frames end in a stream that comes in pieces of any size."""

    def __init__(self, *, after_protocol_header: bool) -> None:
        self._header = b""
        self._left = 8 if after_protocol_header else 0  # bytes of the current frame still to come
        self._counts = not after_protocol_header

    def feed(self, data: bytes) -> list[int]:
        """The positions in `data` just behind each frame that ends there."""
        ends, place = [], 0
        while place < len(data):
            if self._left == 0:
                missing = 7 - len(self._header)
                self._header += data[place : place + missing]
                place += missing
                if len(self._header) == 7:
                    self._left = struct.unpack(">BHL", self._header)[2] + 1  # the frame's payload and its end mark
                    self._header = b""
                continue
            taken = min(self._left, len(data) - place)
            place += taken
            self._left -= taken
            if self._left == 0:
                if self._counts:
                    ends.append(place)
                self._counts = True
        return ends


class Link:
    """One client's connection and its other half to the server."""

    def __init__(self, proxy: Proxy, client: _Streams, server: _Streams) -> None:
        self._proxy = proxy
        self._sides = {Direction.TO_SERVER: (client, server), Direction.TO_CLIENT: (server, client)}
        self._frames = {
            direction: FrameEnds(after_protocol_header=direction is Direction.TO_SERVER) for direction in Direction
        }
        self._pumps: dict[Direction, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Carry both directions until both have ended, or until the link is cut."""
        self._pumps = {direction: asyncio.create_task(self._pump(direction)) for direction in Direction}
        try:
            await asyncio.wait(self._pumps.values())
        finally:
            self.reset()
            await asyncio.gather(*self._pumps.values(), return_exceptions=True)

    def reset(self) -> None:
        """Both sides see a reset."""
        for pump in self._pumps.values():
            pump.cancel()
        for source, _ in self._sides.values():
            _abort(source.writer)

    def half_close(self, direction: Direction) -> None:
        """The receiver of this direction sees the end of the stream; the other direction goes on."""
        self._pumps[direction].cancel()
        with contextlib.suppress(OSError):  # the receiver was gone already, and nobody had noticed
            _end(self._sides[direction][1].writer)

    async def _pump(self, direction: Direction) -> None:
        source, sink = self._sides[direction]
        try:
            while data := await source.reader.read(CHUNK_BYTES):
                cut, place = self._proxy.next_cut(self, direction, data, self._frames[direction].feed(data))
                await self._deliver(direction, sink.writer, data[:place])
                if cut is not None:
                    await self._cut(source, sink)
                    cut.report()
                    return
            await self._proxy.passable(direction)
            _end(sink.writer)
        except OSError:
            self.reset()  # one side was reset: so is the other

    async def _deliver(self, direction: Direction, writer: asyncio.StreamWriter, data: bytes) -> None:
        conditions = self._proxy.conditions(direction)
        if conditions.delay_seconds:
            await asyncio.sleep(conditions.delay_seconds)
        while data:
            await self._proxy.passable(direction)
            speed = self._proxy.conditions(direction).bytes_per_second
            size = len(data) if speed is None else max(1, int(speed / SLICES_A_SECOND))
            writer.write(data[:size])
            await writer.drain()
            if speed is not None:
                await asyncio.sleep(min(size, len(data)) / speed)
            data = data[size:]

    async def _cut(self, source: _Streams, sink: _Streams) -> None:
        for pump in self._pumps.values():
            if pump is not asyncio.current_task():
                pump.cancel()
        _abort(source.writer)
        # Closed in order, for what was delivered to be read before the end.
        sink.writer.close()
        with contextlib.suppress(OSError):
            await sink.writer.wait_closed()


@dataclass(frozen=True, slots=True)
class _Streams:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Proxy:
    """Listens on `port` of the loopback interface and carries every connection to `host`:`target_port`.

    Where the server refuses or cannot be reached, the client sees a reset. In a blackhole new connections are still
    accepted, by the kernel; nothing comes through them.
    """

    def __init__(self, host: str, target_port: int) -> None:
        self._target = (host, target_port)
        self._conditions = dict.fromkeys(Direction, Conditions())
        self._changed = asyncio.Event()
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._cuts: list[Cut] = []
        self._listener: asyncio.Server | None = None
        self.port = 0
        self.refusing = False  # new connections are reset at once

    @property
    def to_server(self) -> Conditions:
        return self._conditions[Direction.TO_SERVER]

    @to_server.setter
    def to_server(self, conditions: Conditions) -> None:
        self._set(Direction.TO_SERVER, conditions)

    @property
    def to_client(self) -> Conditions:
        return self._conditions[Direction.TO_CLIENT]

    @to_client.setter
    def to_client(self, conditions: Conditions) -> None:
        self._set(Direction.TO_CLIENT, conditions)

    @property
    def connections(self) -> int:
        return len(self._links)

    def both_ways(self, conditions: Conditions) -> None:
        for direction in Direction:
            self._set(direction, conditions)

    def heal(self) -> None:
        """Lift all conditions and refuse no more. Armed cuts stay armed."""
        self.both_ways(Conditions())
        self.refusing = False

    def reset(self) -> int:
        """Reset every connection, on both sides. Returns how many."""
        for link in self._links:
            link.reset()
        return len(self._links)

    def half_close(self, direction: Direction) -> int:
        """End one direction of every connection. Returns how many."""
        for link in self._links:
            link.half_close(direction)
        return len(self._links)

    def cut_after(self, count: int, unit: Unit, direction: Direction) -> Cut:
        """Arm one cut, which happens once. See `Cut`."""
        cut = Cut(count, unit, direction)
        self._cuts.append(cut)
        return cut

    def conditions(self, direction: Direction) -> Conditions:
        return self._conditions[direction]

    def target_of(self, client: asyncio.StreamWriter) -> tuple[str, int]:
        """Where to carry that client's connection."""
        return self._target

    async def passable(self, direction: Direction) -> None:
        """Wait while this direction is a blackhole."""
        while self._conditions[direction].blackhole:
            await self._changed.wait()

    def next_cut(self, link: Link, direction: Direction, data: bytes, frame_ends: list[int]) -> tuple[Cut | None, int]:
        """The first armed cut that falls into `data`, disarmed by this, and how much comes before it."""
        for cut in self._cuts:
            if cut.direction is direction:
                place = cut.place(link, data, frame_ends)
                if place is not None:
                    self._cuts.remove(cut)
                    return cut, place
        return None, len(data)

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and reset what is left."""
        if self._listener is not None:
            self._listener.close()
        for task in self._links.values():
            task.cancel()
        await asyncio.gather(*self._links.values(), return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _set(self, direction: Direction, conditions: Conditions) -> None:
        self._conditions[direction] = conditions
        self._changed.set()
        self._changed = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Streams(reader, writer)
        if self.refusing:
            _abort(writer)
            return
        try:
            server = _Streams(*await asyncio.open_connection(*self.target_of(writer)))
        except OSError:
            _abort(writer)
            return
        link = Link(self, client, server)
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            await link.run()
        except asyncio.CancelledError:
            pass  # only `stop` cancels, and this task has nothing left to do
        finally:
            del self._links[link]


def _end(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.write_eof()


def _abort(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        # Lingering for no time is how a socket is told to send a reset instead of an orderly end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


class ProxyThread:
    """A proxy in an event loop and a thread of its own.

    with ProxyThread("127.0.0.1", 6379) as thread:
        thread.do(lambda proxy: proxy.reset())
    """

    def __init__(self, host: str, target_port: int) -> None:
        self._target = (host, target_port)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._proxy: Proxy | None = None
        self._over: asyncio.Event | None = None

    @property
    def port(self) -> int:
        return self.do(lambda proxy: proxy.port)

    def do(self, action: Callable[[Proxy], Result]) -> Result:
        """Run `action` in the proxy's loop and return what it returns."""

        async def act() -> Result:
            assert self._proxy is not None
            return action(self._proxy)

        if self._loop is None:
            raise RuntimeError("the proxy's thread has not been started")
        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(THREAD_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(THREAD_SECONDS):
            raise RuntimeError("the proxy's thread does not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(THREAD_SECONDS)

    async def _serve(self) -> None:
        async with Proxy(*self._target) as self._proxy:
            self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._over.wait()
