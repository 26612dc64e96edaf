"""A connection that hears what is published: among answers, in order, and until it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import NoPermissionError, RedisError

from callboard.metadata.redis.address import parse
from callboard.metadata.redis.ear import Ear
from callboard.metadata.redis.pipe import encode


class Radio:
    """A server that confirms SUBSCRIBE, with `refusal` where there is one, and answers PING, once `may_answer` is set,
    behind what was published meanwhile."""

    def __init__(self) -> None:
        self.refusal = b""
        self.channels: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.connections += 1
        try:
            while head := await reader.readline():
                parts = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(head[1:]))]
                if parts[0] == b"SUBSCRIBE" and not self.refusal:
                    self.channels.append(parts[1])
                    writer.write(encode(b"subscribe", parts[1]).replace(b"*2", b"*3", 1) + b":1\r\n")
                elif parts[0] == b"SUBSCRIBE":
                    writer.write(self.refusal)
                else:
                    self.asked.set()
                    await self.may_answer.wait()
                    writer.write(encode(b"pong", b""))
        finally:
            writer.close()

    def publish(self, channel: bytes, *messages: bytes) -> None:
        assert self._writer is not None
        self._writer.write(b"".join(encode(b"message", channel, message) for message in messages))

    def cut(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.deaf = 0
        self.is_deaf = asyncio.Event()

    def hear(self, channel: bytes, message: bytes) -> None:
        self.heard.append((channel, message))

    def lost(self) -> None:
        self.deaf += 1
        self.is_deaf.set()


@asynccontextmanager
async def ear_at(radio: Radio, listener: Listener, *, timeout: float = 30) -> AsyncIterator[Ear]:
    listening = await asyncio.start_server(radio.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def where() -> tuple[str, int]:
        return "127.0.0.1", port

    address = parse(f"redis://127.0.0.1:{port}/0?timeout={timeout:g}")
    ear = Ear(address, where=where, heard=listener.hear, deaf=listener.lost)
    try:
        async with asyncio.timeout(60):
            yield ear
    finally:
        radio.may_answer.set()
        await ear.close()
        listening.close()
        await listening.wait_closed()


async def test_what_is_published_is_heard_in_order_among_answers() -> None:
    radio, listener = Radio(), Listener()
    async with ear_at(radio, listener) as ear:
        await ear.subscribe([b"a", b"b"])
        assert radio.channels == [b"a", b"b"]
        radio.publish(b"a", b"1", b"\r\n*3\r\n")
        await ear.sync()
        radio.publish(b"b", b"2")
        radio.publish(b"a", b"")
        await ear.sync()
        assert listener.heard == [(b"a", b"1"), (b"a", b"\r\n*3\r\n"), (b"b", b"2"), (b"a", b"")]


async def test_syncs_wait_for_what_was_published_before() -> None:
    radio, listener = Radio(), Listener()
    async with ear_at(radio, listener) as ear:
        await ear.subscribe([b"a"])
        radio.may_answer.clear()
        syncing = [asyncio.create_task(ear.sync()) for _ in range(2)]
        await radio.asked.wait()
        radio.publish(b"a", b"before")
        assert not any(sync.done() for sync in syncing)
        radio.may_answer.set()
        await asyncio.gather(*syncing)
        assert listener.heard == [(b"a", b"before")]


async def test_a_connection_that_is_lost_is_told_once_and_not_made_again() -> None:
    radio, listener = Radio(), Listener()
    async with ear_at(radio, listener) as ear:
        await ear.subscribe([b"a"])
        radio.cut()
        await listener.is_deaf.wait()
        await ear.sync()
        await ear.close()
        assert (listener.deaf, radio.connections) == (1, 1)


async def test_who_waits_for_what_was_published_is_let_go_when_the_connection_is_lost() -> None:
    radio, listener = Radio(), Listener()
    async with ear_at(radio, listener) as ear:
        await ear.subscribe([b"a"])
        radio.may_answer.clear()
        syncing = asyncio.create_task(ear.sync())
        await radio.asked.wait()
        radio.cut()
        await syncing
        assert listener.deaf == 1


async def test_a_server_that_does_not_answer_in_time_is_given_up() -> None:
    radio, listener = Radio(), Listener()
    async with ear_at(radio, listener, timeout=0.2) as ear:
        await ear.subscribe([b"a"])
        radio.may_answer.clear()
        await ear.sync()
        await listener.is_deaf.wait()
        assert listener.deaf == 1


async def test_who_closes_it_is_not_told_that_it_is_lost() -> None:
    radio, listener = Radio(), Listener()
    async with ear_at(radio, listener) as ear:
        await ear.subscribe([b"a"])
        await ear.close()
        await ear.sync()
        assert listener.deaf == 0


async def test_a_channel_that_is_forbidden_is_told_to_who_asked() -> None:
    radio, listener = Radio(), Listener()
    radio.refusal = b"-NOPERM No permissions to access a channel\r\n"
    async with ear_at(radio, listener) as ear:
        with pytest.raises(NoPermissionError, match="access a channel"):
            await ear.subscribe([b"a", b"b"])
        await ear.close()
        assert listener.deaf == 0


async def test_a_server_that_is_lost_while_it_is_asked_is_told_to_who_asked() -> None:
    radio, listener = Radio(), Listener()
    radio.refusal = b"not Redis\r\n"
    async with ear_at(radio, listener) as ear:
        with pytest.raises(RedisError):
            await ear.subscribe([b"a"])
