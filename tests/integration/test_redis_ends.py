"""Who waits for a result, at a Redis whose connections are lost without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from callboard import Callboard, EnqueueUncertain
from callboard.runtime.handle import LOOK_AGAIN_SECONDS
from callboard.runtime.testing import running
from integration.redis_private import private_redis

ANSWER_SECONDS = 1  # what a lost connection costs its next call


class Way:
    """To a server. Of the connections that were there when it was cut nothing comes any more, nor does their end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._there: set[asyncio.StreamWriter] = set()
        self._cut: set[asyncio.StreamWriter] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._cut |= self._there

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._there.add(writer)
        back, on = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends += [writer, on]
        for source, sink in ((reader, on), (back, writer)):
            pump = asyncio.create_task(self._pump(source, sink, writer))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: object) -> None:
        while data := await source.read(65_536):
            if client not in self._cut:
                sink.write(data)
        if client not in self._cut:
            sink.close()


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[tuple[Way, str]]:
    with private_redis(tmp_path) as redis:
        way = Way(redis.port)
        async with await asyncio.start_server(way.connect, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            yield way, f"redis://127.0.0.1:{port}/0?timeout={ANSWER_SECONDS}"
            server.close()
            await way.close()


async def test_ends_are_heard_again_after_the_way_to_the_store_was_lost_without_a_word(way: tuple[Way, str]) -> None:
    app = Callboard(broker="memory://", store=way[1], namespace="test")
    numbers = count()

    @app.task(name="t")
    async def t() -> None:
        await asyncio.sleep(0.1)

    async def seconds() -> float:
        """Until the end of a job is known, whose id was chosen."""
        job = await t.options(job_id=f"job-{next(numbers)}").enqueue()
        before = asyncio.get_running_loop().time()
        await job.result(20)
        return asyncio.get_running_loop().time() - before

    async with running(app), asyncio.timeout(60):
        assert await seconds() < LOOK_AGAIN_SECONDS
        way[0].cut()
        with pytest.raises(EnqueueUncertain):
            await seconds()
        while await seconds() > LOOK_AGAIN_SECONDS / 2:
            pass
