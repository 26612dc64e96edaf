"""Runs sync functions in threads, as many as the worker has slots.

Not concurrent.futures: its threads are joined when the interpreter exits, so one function that never returns would
keep the worker's process from ending. These are daemons.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ..results import encode_result
from .contract import Call, TaskExited, TaskTimeout
from .occupancy import Occupancy

Work = Callable[[], None]


class ThreadExecutor:
    """A thread cannot be stopped: after a timeout or a cancellation `run` ends at once and the context's `cancelled` is
    set, while the function goes on and its slot stays taken until it returns. What it returns then is dropped."""

    def __init__(self, threads: int) -> None:
        """`threads`: the most calls that may run at once; the worker hands over no more."""
        self._size = threads
        self._occupancy = Occupancy()
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._started = 0

    @property
    def busy(self) -> int:
        return self._occupancy.busy

    @property
    def abandoned(self) -> int:
        return self._occupancy.abandoned

    async def run(self, call: Call) -> bytes:
        self._occupancy.enter(call)
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[bytes] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            result, error = _call(context, call)
            try:
                loop.call_soon_threadsafe(self._end, call, outcome, result, error)
            except RuntimeError:  # the loop was closed meanwhile: nobody is left to be told
                return

        if self._started < min(self.busy, self._size):
            thread = threading.Thread(target=self._serve, name=f"callboard-{self._started + 1}", daemon=True)
            try:
                thread.start()
            except BaseException:  # no more threads: this call fails, and its slot and thread are left to the next
                self._occupancy.leave(call)
                raise
            self._started += 1
        self._work.put(work)
        try:
            done, _ = await asyncio.wait({outcome}, timeout=call.timeout_seconds)
        except asyncio.CancelledError:
            self._abandon(call, outcome)
            raise
        if done:
            return outcome.result()
        self._abandon(call, outcome)
        raise TaskTimeout(call.timeout_seconds or 0)

    async def close(self, grace_seconds: float) -> None:
        self._occupancy.closed = True
        await self._occupancy.drained(grace_seconds)
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _abandon(self, call: Call, outcome: asyncio.Future[bytes]) -> None:
        if outcome.cancel():
            self._occupancy.abandoned += 1
            call.context.cancel()
        else:
            outcome.exception()  # it ended in the same tick: marked as seen, or asyncio logs it as never retrieved

    def _end(
        self, call: Call, outcome: asyncio.Future[bytes], result: bytes | None, error: BaseException | None
    ) -> None:
        if outcome.cancelled():
            self._occupancy.abandoned -= 1
        elif error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result or b"null")
        self._occupancy.leave(call)


def _call(context: contextvars.Context, call: Call) -> tuple[bytes | None, BaseException | None]:
    """In the thread: also the checking of arguments and the writing of the result, which the loop is spared."""
    try:
        positional, named = call.signature.bind_json(call.args, call.kwargs).call_with(call.context)
        return encode_result(context.run(call.function, *positional, **named), call.result_limit), None
    except StopIteration as error:  # a future does not carry it
        exited = TaskExited(error)
        exited.__cause__ = error
        return None, exited
    except Exception as error:
        return None, error
    except BaseException as error:  # a SystemExit ends the run, not the worker
        exited = TaskExited(error)
        exited.__cause__ = error
        return None, exited
