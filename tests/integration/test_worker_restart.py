"""An actor that fails within a living process is started again, and costs no job."""

import asyncio

import pytest

from callboard import Callboard
from callboard.actors.worker import Worker
from callboard.runtime.testing import running
from callboard.runtime.wire import Command


class Fragile(Worker):
    """Fails when it is told to."""

    def receive(self, command: Command) -> None:
        if command.command == "fail":
            self._group.create_task(self._fail())
        super().receive(command)

    async def _fail(self) -> None:
        raise RuntimeError("told to fail")


async def test_a_worker_that_fails_leaves_no_consumer_behind(caplog: pytest.LogCaptureFixture) -> None:
    app = Callboard(broker="memory://", store="memory://")

    @app.task(name="t")
    async def note() -> None: ...

    queue = app.queue("default")
    async with running(app, actors=[Fragile, "stalled-recovery"]):
        await (await note.enqueue()).result(5)
        await app.connections.dispatcher.command("worker", Command(command="fail"))
        async with asyncio.timeout(10):
            while "starting it again" not in caplog.text:
                await asyncio.sleep(0.02)
        jobs = [await note.enqueue() for _ in range(20)]
        for job in jobs:
            await job.result(10)
        depth = await app.connections.broker.depth(app.connections.names.job_queue("default"))
        assert depth is not None
        assert depth.consumers == 1
        assert (await queue.queue_counts()).completed == 21
