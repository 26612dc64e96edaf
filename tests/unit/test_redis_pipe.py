"""A pipe to Redis whose server refuses its credentials for a while, answers them too late, or is gone at a write;
a pipe that is closed before it leads anywhere."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import AuthenticationError

from callboard.metadata.redis.address import parse
from callboard.metadata.redis.pipe import PING, Lost, Pipe, encode


class Doorkeeper:
    """Answers AUTH with `says`, `asked` having been set, once it `may_answer`; and everything else with OK."""

    def __init__(self) -> None:
        self.says = b"+OK\r\n"
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                parts = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(head[1:]))]
                if parts[0] == b"AUTH":
                    self.asked.set()
                    await self.may_answer.wait()
                writer.write(self.says if parts[0] == b"AUTH" else b"+OK\r\n")
        finally:
            writer.close()


@asynccontextmanager
async def pipe_to(server: Doorkeeper, *, timeout: float, before: float = 0.0) -> AsyncIterator[Pipe]:
    """`before`: seconds that the way to the server takes to be found."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def where() -> tuple[str, int]:
        await asyncio.sleep(before)
        return "127.0.0.1", port

    pipe = Pipe(parse(f"redis://user:password@127.0.0.1:{port}/0?timeout={timeout:g}"), where=where)
    try:
        yield pipe
    finally:
        server.may_answer.set()
        await pipe.close()
        listening.close()
        await listening.wait_closed()


async def test_a_server_that_refused_the_password_is_asked_again_and_lets_in() -> None:
    server = Doorkeeper()
    server.says = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    async with pipe_to(server, timeout=30) as pipe, asyncio.timeout(60):
        for _ in range(3):
            with pytest.raises(AuthenticationError):
                await pipe.ask([PING])
        server.says = b"+OK\r\n"
        assert await pipe.ask([PING]) == [b"OK"]


async def test_a_connection_that_was_let_in_too_late_is_replaced() -> None:
    server = Doorkeeper()
    server.may_answer.clear()
    async with pipe_to(server, timeout=1, before=0.3) as pipe, asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            await pipe.ask([PING])
        assert server.asked.is_set()
        server.may_answer.set()  # before the answer itself is overdue
        await asyncio.sleep(0.05)
        assert await pipe.ask([PING]) == [b"OK"]


async def test_who_waits_for_a_connection_that_is_closed_meanwhile_is_told_so_and_not_cancelled() -> None:
    async with pipe_to(Doorkeeper(), timeout=60, before=30) as pipe, asyncio.timeout(60):
        calls = [asyncio.create_task(pipe.ask([PING])) for _ in range(2)]
        await asyncio.sleep(0.05)
        calls[0].cancel()
        await asyncio.wait([calls[0]])
        await pipe.close()
        with pytest.raises(Lost):
            await calls[1]
        assert calls[0].cancelled()


async def test_several_calls_that_are_written_to_a_connection_which_was_reset_are_lost_together() -> None:
    loop, told = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    async def answer_once() -> socket.socket:
        connection, _ = await loop.sock_accept(listening)
        await loop.sock_recv(connection, 4096)
        await loop.sock_sendall(connection, b"+OK\r\n")
        return connection

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        host, port = listening.getsockname()

        async def here() -> tuple[str, int]:
            return host, port

        pipe = Pipe(parse(f"redis://127.0.0.1:{port}/0"), where=here)
        serving = asyncio.create_task(answer_once())
        assert await pipe.ask([PING]) == [b"OK"]
        connection = await serving
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        with pytest.raises(Lost):  # the write is the first to meet it
            await pipe.ask([PING] * 3)
        await pipe.close()
    gc.collect()
    assert told == []


async def test_a_pipe_that_yields_asks_for_something_else_before_a_call_that_comes_alone_and_not_under_load() -> None:
    came: list[bytes] = []
    may_answer = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            parts = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(head[1:]))]
            came.append(parts[0])
            await may_answer.wait()
            writer.write(b"+%b\r\n" % parts[0])
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()

    async def here() -> tuple[str, int]:
        return host, port

    pipe = Pipe(parse(f"redis://127.0.0.1:{port}/0"), where=here, yields=True)
    may_answer.set()
    assert await pipe.ask([encode(b"ONE")]) == [b"ONE"]
    may_answer.clear()
    two, three = (asyncio.create_task(pipe.ask([encode(name)])) for name in (b"TWO", b"THREE"))
    await asyncio.sleep(0.01)
    may_answer.set()
    assert [await two, await three] == [[b"TWO"], [b"THREE"]]
    assert came == [b"PING", b"ONE", b"PING", b"TWO", b"THREE"]
    may_answer.clear()
    lost = asyncio.create_task(pipe.ask([encode(b"FOUR")]))
    await asyncio.sleep(0.01)
    pipe.drop()
    with pytest.raises(Lost):
        await lost
    may_answer.set()
    await pipe.close()
    listening.close()
    await listening.wait_closed()
