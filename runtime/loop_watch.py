"""Watches the event loop from a thread of its own: how late it is, and which handler holds it up.

    thread "callboard-watch" ──call_soon_threadsafe──> loop: "I have run", every quarter of a second

An async handler that computes, or calls what blocks, stops every other job of its process, and its messages and
timeouts too. Nothing fails at once, since heartbeats do not depend on the loop; so it is said, with the job and the
line, well before a lease would matter. A call that holds the interpreter's lock stops this thread as well: it is told
when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from .clock import Clock
from .executors.contract import Call

log = logging.getLogger("callboard.watch")

INTERVAL_SECONDS = 0.25
OWN_PACKAGE = __name__.split(".", 1)[0]


class LoopWatch:
    """`warn_after`: seconds that the loop may not run before a warning names what holds it up; each time it doubles,
    another one. `observe` is told in the loop how late it was, each time. Entered in the loop that is watched.
    Everything but entering and leaving may be called from any thread."""

    def __init__(
        self,
        clock: Clock,
        *,
        warn_after: float,
        interval: float = INTERVAL_SECONDS,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._warn_after = warn_after
        self._interval = min(interval, warn_after / 4)
        self._observe = observe
        self._asked_at: float | None = None  # while an answer is awaited
        self._worst = 0.0
        self._over = threading.Event()

    @property
    def lag(self) -> float:
        """Seconds for which the loop has not run by now."""
        asked = self._asked_at
        return 0.0 if asked is None else self._clock.elapsed() - asked

    def take_worst(self) -> float:
        """The longest lag, in seconds, since the last call."""
        worst, self._worst = max(self._worst, self.lag), 0.0
        return worst

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="callboard-watch", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()  # it waits for nothing else

    def _watch(self) -> None:
        told = 0.0
        looked = self._clock.elapsed()
        while not self._over.wait(self._interval):
            now = self._clock.elapsed()
            starved, looked = now - looked - self._interval, now
            if starved > self._warn_after:
                self._warn_of_starvation(starved)
            if self._asked_at is None:
                told = 0.0
                self._asked_at = now
                self._loop.call_soon_threadsafe(self._answer, now)
            elif now - self._asked_at >= max(self._warn_after, 2 * told):
                told = now - self._asked_at
                self._warn(told)

    def _answer(self, asked: float) -> None:
        lag = self._clock.elapsed() - asked
        self._worst = max(self._worst, lag)
        if self._observe is not None:
            self._observe(lag)
        self._asked_at = None

    def _warn(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        log.warning(
            "the event loop has not run for %.1f s, held up by %s; no other job of this process gets on meanwhile: "
            "await what waits, and compute in a task that is not async, or has executor='process'",
            seconds,
            describe(frame),
        )

    def _warn_of_starvation(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        log.warning(
            "no thread of this process could run for %.1f s: a call held the interpreter's lock, or the machine stood "
            "still; the event loop now is in %s. Where a handler does this, heartbeat='process' keeps its lease",
            seconds,
            describe(frame),
        )


class Standstill:
    """For how long a loop has not run though another thread did. While neither ran, since the process was stopped, the
    machine slept or a call held the interpreter's lock, the loop has missed nothing that the thread has not.

    Made in the loop; asked from that thread alone, every `step` seconds or so: no more is counted at a time.
    `runs_again` is called in the loop with each answer of it."""

    def __init__(self, clock: Clock, *, step: float, runs_again: Callable[[], None]) -> None:
        self._clock = clock
        self._step = step
        self._runs_again = runs_again
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._answered = True
        self._looked = clock.elapsed()
        self._seconds = 0.0

    def ask(self) -> float:
        """Seconds, 0 if it has run since the last time."""
        now = self._clock.elapsed()
        passed, self._looked = now - self._looked, now
        if self._answered:
            self._answered, self._seconds = False, 0.0
            self._loop.call_soon_threadsafe(self._answer)
        else:
            self._seconds += min(passed, self._step)
        return self._seconds

    def where(self) -> str:
        return describe(sys._current_frames().get(self._loop_thread))

    def _answer(self) -> None:
        self._answered = True
        self._runs_again()


def describe(frame: FrameType | None) -> str:
    """The job in whose handler a thread is, if it is in one, and the lines of the handler and of where it is by now."""
    if frame is None:
        return "a thread that has ended"
    innermost, handler = frame, frame
    outer: FrameType | None = frame
    while outer is not None:
        call = outer.f_locals.get("call") if "call" in outer.f_code.co_varnames else None
        if isinstance(call, Call):
            job = f"job {call.context.job_id} of task {call.context.task}, "
            where = _line(handler) if handler is innermost else f"{_line(handler)}, now {_line(innermost)}"
            return job + where
        if not _is_ours(outer):
            handler = outer
        outer = outer.f_back
    return f"no handler's own call, now {_line(innermost)}"


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).split(".", 1)[0] == OWN_PACKAGE


def _line(frame: FrameType) -> str:
    return f"line {frame.f_lineno} of {frame.f_code.co_filename} in {frame.f_code.co_name}"
