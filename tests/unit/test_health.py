from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from callboard import Callboard, ConfigurationError
from callboard.runtime.actor import Actor, Options
from callboard.runtime.clock import SystemClock
from callboard.runtime.connections import Connections
from callboard.runtime.deployment import Deployment
from callboard.runtime.health import Health
from callboard.runtime.health_server import HealthServer
from callboard.runtime.loop_watch import LoopWatch
from callboard.runtime.registry import find_actor
from callboard.runtime.settings import load_settings

KINDS = ("worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention", "intake")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


async def ask_until(port: int, path: str, true: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            status, report = await asyncio.to_thread(ask, port, path)
            if true(status, report):
                return report
            await asyncio.sleep(0.02)


def new_app(**settings: Any) -> tuple[Callboard, int]:
    port = free_port()
    app = Callboard(broker="memory://", store="memory://", health_port=port, **settings)

    @app.task(name="t")
    async def t() -> None: ...

    return app, port


@asynccontextmanager
async def deployed(app: Callboard, *actors: type[Actor]) -> AsyncIterator[Deployment]:
    deployment = Deployment(app, actors or [find_actor(kind) for kind in KINDS], Options(), watched=True)
    running = asyncio.create_task(deployment.run())
    await deployment.started.wait()
    try:
        yield deployment
    finally:
        deployment.stop()
        await running


async def test_a_process_is_ready_once_every_actor_works_and_broker_and_store_have_answered() -> None:
    app, port = new_app()
    async with deployed(app):
        report = await ask_until(port, "/ready", lambda status, _: status == 200)
        assert (report["live"], report["ready"], report["reasons"]) == (True, True, [])
        assert {one["kind"]: one["working"] for one in report["actors"]} == dict.fromkeys(KINDS, True)
        assert report["broker_ago"] >= 0
        assert report["store_ago"] >= 0
        status, report = await asyncio.to_thread(ask, port, "/live")
        assert (status, report["live"]) == (200, True)
        assert (await asyncio.to_thread(ask, port, "/other"))[0] == 404


async def test_a_loop_that_stands_still_is_not_alive_and_says_for_how_long() -> None:
    app, port = new_app(stuck_after_seconds=0.5)
    async with deployed(app):
        await ask_until(port, "/live", lambda status, _: status == 200)
        answers: list[tuple[int, dict[str, Any]]] = []

        def watch() -> None:
            while not answers or answers[-1][0] != 503:
                answers.append(ask(port, "/live"))
                time.sleep(0.02)

        watching = threading.Thread(target=watch)
        watching.start()
        watching.join(60)  # in the loop: it stands still until the thread has seen that it does
        status, report = answers[-1]
        assert (status, report["live"], report["ready"]) == (503, False, False)
        assert report["reasons"][0].startswith("the event loop has not run for")
        await ask_until(port, "/live", lambda status, _: status == 200)


async def test_a_process_that_is_being_stopped_lives_and_is_not_ready() -> None:
    app, port = new_app()
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        began.set()
        await may_end.wait()

    async with deployed(app) as deployment:
        await slow.enqueue()
        await began.wait()
        await ask_until(port, "/ready", lambda status, _: status == 200)
        deployment.stop()
        status, report = await asyncio.to_thread(ask, port, "/ready")
        assert (status, report["live"]) == (503, True)
        assert "it is being stopped" in report["reasons"]
        may_end.set()


class Never(Actor):
    """Fails, is started again, and fails."""

    kind: ClassVar[str] = "never"

    async def run(self) -> None:
        if not self.stage.stopping.is_set():
            raise RuntimeError("not today")


async def test_an_actor_that_fails_keeps_its_process_from_being_ready_and_is_named() -> None:
    app, port = new_app()
    async with deployed(app, Never, find_actor("retention")):
        report = await ask_until(port, "/ready", lambda _, report: report["actors"][0]["restarts"] > 0)
        assert (report["live"], report["ready"]) == (True, False)
        assert "actor never does not work (yet)" in report["reasons"]


class Ground:
    """Connections whose broker takes messages and delivers none."""

    def __init__(self) -> None:
        real = Connections(load_settings(broker="memory://", store="memory://"), SystemClock())
        self.settings, self.clock, self.names, self.store = real.settings, real.clock, real.names, real.store
        self.broker = self
        self.fault: Exception | None = None  # of each publish

    async def declare(self, topology: object) -> None: ...

    async def consume(self, queue: str, receive: object, *, prefetch: int) -> Ground:
        return self

    async def cancel(self) -> None: ...

    async def publish(self, messages: object, *, timeout: float) -> None:
        if self.fault is not None:
            raise self.fault


async def test_a_broker_that_takes_a_message_and_does_not_bring_it_back_is_not_ready() -> None:
    ground = Ground()
    await ground.store.open()
    async with LoopWatch(ground.clock, warn_after=60) as watch, Health(ground, watch, interval=0.05) as health:  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            while health.report().store_ago is None:
                await asyncio.sleep(0.01)
        report = health.report()
        assert (report.live, report.ready, report.broker_ago) == (True, False, None)
        assert "no round trip to the broker: none has come back" in report.reasons
        assert not any("store" in reason for reason in report.reasons)
    await ground.store.close()


async def test_a_look_that_fails_as_nobody_foresaw_is_told_once_and_made_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ground = Ground()
    await ground.store.open()
    ground.fault = ValueError("a driver's fault")
    async with LoopWatch(ground.clock, warn_after=60) as watch, Health(ground, watch, interval=0.01) as health:  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            while not any("ValueError: a driver's fault" in reason for reason in health.report().reasons):
                await asyncio.sleep(0.01)
            seen = health.report().store_ago
            assert seen is not None
            while (ago := health.report().store_ago) is not None and ago >= seen:  # it has looked again since
                seen = ago
                await asyncio.sleep(0.001)
        assert health.report().live
    await ground.store.close()
    (record,) = [record for record in caplog.records if record.name == "callboard.health"]
    assert "ValueError: a driver's fault" in record.getMessage()
    assert record.exc_info is not None


async def test_a_port_that_is_taken_is_refused_by_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"health_port {port}: cannot be listened on"):
            HealthServer(lambda: None, host="127.0.0.1", port=port)  # type: ignore[arg-type, return-value]
