"""A worker's heart: what becomes of it, and of the worker, where it cannot beat."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from callboard.metadata.contract import Heartbeat
from callboard.runtime.clock import SystemClock
from callboard.runtime.errors import HeartStopped
from callboard.runtime.heart import Heart
from callboard.runtime.settings import Settings
from callboard.runtime.sibling import Sibling


class Connected:
    """Connections to a store that others use too, and that store, which counts its heartbeats."""

    shared: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**{"broker": "memory://", "store": "memory://", "lease_seconds": 0.5, **settings})
        self.clock = SystemClock()
        self.store = self
        self.beats = 0
        self.fault: BaseException | None = None

    def another_store(self) -> Connected:
        if self.fault is not None:
            raise self.fault
        return self

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def get(self, _: type) -> Connected:
        return self

    async def heartbeat(self, boot: str, queues: object, *, info: bytes, now: int) -> Heartbeat:
        self.beats += 1
        return Heartbeat(True, (), ())


class Worker:
    """What a heart tells, and what it asks."""

    def __init__(self, connected: Any, **given: Any) -> None:
        self.beaten = asyncio.Event()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.sick: BaseException | None = None
        self.heart = Heart(
            connected,
            queues=["q"],
            info=self.info,
            beaten=lambda *_: self.beaten.set(),
            failed=self.failed.set_result,
            **given,
        )

    def info(self) -> bytes:
        if self.sick is not None:
            raise self.sick
        return b"{}"

    async def failure(self) -> BaseException:
        """What the heart failed with. Stopping it then, as the worker does, is in order."""
        async with asyncio.timeout(60):
            error = await self.failed
            await self.heart.stop()
        return error


async def test_a_loop_that_stands_still_for_good_is_given_up_until_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "callboard.heart")
    connected = Connected()
    worker = Worker(connected, patience=2.0)
    worker.heart.start("boot")
    async with asyncio.timeout(60):
        await worker.beaten.wait()
    before = connected.beats

    hold_up_the_loop(until=lambda: "others will have its jobs" in caplog.text)
    given_up = connected.beats
    time.sleep(0.6)  # some intervals
    assert connected.beats == given_up > before
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"of {__file__} in hold_up_the_loop" in told

    async with asyncio.timeout(60):
        while connected.beats == given_up:
            await asyncio.sleep(0.01)
    await worker.heart.stop()
    assert "the event loop runs again; heartbeats go on" in caplog.text


def hold_up_the_loop(*, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_heart_stops_also_while_handlers_have_taken_all_threads_of_the_loop() -> None:
    over = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    taken = loop.run_in_executor(None, over.wait, 120)
    worker = Worker(Connected())
    worker.heart.start("boot")
    try:
        async with asyncio.timeout(60):
            await worker.beaten.wait()
            await worker.heart.stop()
    finally:
        over.set()
    assert await taken


async def test_a_heart_that_gets_no_connection_of_its_own_fails_aloud() -> None:
    connected = Connected()
    connected.fault = OSError("too many open files")
    worker = Worker(connected)
    worker.heart.start("boot")
    assert await worker.failure() is connected.fault


async def test_a_heart_that_fails_while_it_beats_fails_aloud() -> None:
    worker = Worker(Connected())
    worker.heart.start("boot")
    async with asyncio.timeout(60):
        await worker.beaten.wait()
    worker.sick = RuntimeError("dictionary changed size during iteration")
    assert await worker.failure() is worker.sick


async def test_a_heart_whose_process_cannot_be_started_fails_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    worker = Worker(Connected(heartbeat="process"))
    worker.heart.start("boot")
    assert isinstance(await worker.failure(), FileNotFoundError)


async def test_a_heart_in_a_process_beats_also_for_very_many_queues() -> None:
    beaten = asyncio.Event()
    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    sibling = Sibling(
        Settings(broker="memory://", store="memory://", lease_seconds=1),
        queues=[f"tenant-{number:05}-{'x' * 80}" for number in range(1000)],
        info=lambda: b"{}",
        beaten=lambda *_: beaten.set(),
        failed=failed.set_result,
        patience=60,
    )
    sibling.start("boot")
    async with asyncio.timeout(60):
        await asyncio.wait([beating := asyncio.ensure_future(beaten.wait()), failed], return_when="FIRST_COMPLETED")
        beating.cancel()
        await sibling.stop()
    assert beaten.is_set()


async def test_a_heart_whose_process_ends_at_once_fails_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    worker = Worker(Connected(heartbeat="process"))
    worker.heart.start("boot")
    assert isinstance(error := await worker.failure(), HeartStopped)
    assert "ended with 1" in str(error)


async def test_a_heart_that_cannot_say_what_its_process_should_beat_with_fails_with_the_reason() -> None:
    worker = Worker(Connected(heartbeat="process"))
    worker.sick = RuntimeError("dictionary changed size during iteration")
    worker.heart.start("boot")
    assert await worker.failure() is worker.sick
