"""From callers that cannot await to coroutines: into a loop in a thread, or at once where nothing is waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..errors import CallboardError

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, from `__init__` to `stop`. A daemon, which keeps no process from ending."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises. Not from the thread itself, which would wait for itself."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def stop(self) -> None:
        """Once nothing is left to run in it; from the thread itself without waiting for its end."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


class WouldWait(CallboardError):
    """A coroutine that was to be done at once has something to wait for."""


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing, such as those on the store in memory. For the loop's own thread,
    while the loop runs: so a sync function called there gets its answer."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise WouldWait(f"{getattr(work, '__qualname__', work)} waits for something; await it")


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
