"""Tells the delayed scanners of jobs that are due before they would look again by themselves.

A scanner sleeps until the next due time that it knows of, and looks at least every `scan_interval` seconds, of which
whoever records a job knows nothing but the limit. So they are told of all that is due within that limit: of the first
job of a queue at once, and from then on of the earliest of all in a window, at its end. What is due before that end is
told at once too, and so is what is due within NEAR_MS, each job by itself. A stream of jobs that are due later costs 20
messages a second for each queue and process, however many they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .clock import Clock
from .settings import MAX_SCAN_SECONDS
from .wire import Command

WINDOW_SECONDS = 0.05
NEAR_MS = 100  # what is due by then would be late if it was told at the window's end


class Wakes:
    """`send`: (routing key, command), which must not wait."""

    def __init__(self, send: Callable[[str, Command], None], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self._windows: dict[str, asyncio.TimerHandle] = {}
        self._untold: dict[str, int] = {}  # queue -> the earliest run_at

    def delayed(self, queue: str, run_at: int) -> None:
        """A job of `queue` is recorded as delayed until `run_at`, ms."""
        left = run_at - self._clock.now()
        if left > MAX_SCAN_SECONDS * 1000:
            return
        if queue in self._windows and left > NEAR_MS:
            self._untold[queue] = min(run_at, self._untold.get(queue, run_at))
            return
        self._tell(queue, run_at)

    def flush(self) -> None:
        """Tell now what is left to tell."""
        for window in self._windows.values():
            window.cancel()
        untold, self._untold, self._windows = self._untold, {}, {}
        for queue, run_at in untold.items():
            self._wake(queue, run_at)

    def _tell(self, queue: str, run_at: int) -> None:
        self._wake(queue, run_at)
        if queue not in self._windows:
            loop = asyncio.get_running_loop()
            self._windows[queue] = loop.call_later(WINDOW_SECONDS, self._window_ended, queue)

    def _window_ended(self, queue: str) -> None:
        del self._windows[queue]
        run_at = self._untold.pop(queue, None)
        if run_at is not None:
            self._tell(queue, run_at)

    def _wake(self, queue: str, run_at: int) -> None:
        self._send(f"delayed-scanner.{queue}", Command(command="wake", queue=queue, run_at=run_at))
