"""A worker that is stopped in a hurry, while the server has yet to execute its claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from callboard import Callboard
from callboard.metadata.contract import Inspection, Workers
from callboard.metadata.job import Outbox, State
from callboard.runtime.testing import running
from mongo_space import MongoSpace

WITHIN_SECONDS = 60.0


class Door:
    """Between a client and the server: the claim of a job that is known to be sent goes on once it is `open`, even
    where the client has hung up meanwhile."""

    def __init__(self, host: str, port: int) -> None:
        self.url = ""
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self._server = host, port
        self._ways: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        for way in (self._pass(reader, server_writer), self._pass(server_reader, writer)):
            task = asyncio.create_task(way)
            self._ways.add(task)
            task.add_done_callback(self._ways.discard)

    async def close(self) -> None:
        for way in list(self._ways):
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Message by message; each begins with its length."""
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:  # ends with the connection
                    head = await reader.readexactly(4)
                    rest = await reader.readexactly(int.from_bytes(head, "little") - 4)
                    if b"\0waiting-sent\0" in rest and b"claimed_at\0" in rest:
                        self.reached.set()
                        await self.open.wait()
                    writer.write(head + rest)
                    await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def _door(url: str) -> AsyncIterator[Door]:
    server = urlsplit(url)
    assert server.hostname is not None
    assert server.port is not None
    door = Door(server.hostname, server.port)
    listening = await asyncio.start_server(door.serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        door.url = url.replace(f":{server.port}", f":{port}")
        try:
            yield door
        finally:
            await door.close()


async def test_a_claim_that_outlives_a_hurried_stop_leaves_no_job_without_its_owners_row(mongo_url: str) -> None:
    space = MongoSpace(mongo_url, claim_window=600_000)
    store = space.store()
    await store.open()
    inspection = store.get(Inspection)
    async with _door(mongo_url) as door:
        app = Callboard(broker="memory://", store=door.url, namespace=space.namespace)

        @app.task(name="t")
        async def t() -> None: ...

        async with asyncio.timeout(WITHIN_SECONDS), app:
            job = await t.enqueue()
            while not (found := (await inspection.get("default", [job.id]))[0]) or found.outbox is not Outbox.SENT:
                await asyncio.sleep(0.02)
            async with running(app, actors=["worker"]) as worker:
                await door.reached.wait()
                worker.stop()
                worker.stop()
        door.open.set()
        async with asyncio.timeout(WITHIN_SECONDS):
            while not (found := (await inspection.get("default", [job.id]))[0]) or found.state is State.WAITING:
                await asyncio.sleep(0.02)
    assert found.state is State.ACTIVE
    assert [row.boot for row in await store.get(Workers).workers(["default"])] == [found.owner]
    assert await inspection.audit("default") == []
    await store.close()
    await space.delete()
