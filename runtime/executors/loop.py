"""Runs async functions on the worker's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ..results import encode_result
from .contract import Call, TaskExited, TaskTimeout
from .occupancy import Occupancy


class LoopExecutor:
    """A timeout and a cancellation raise CancelledError inside the function. One that carries on regardless of its
    timeout is abandoned: `run` ends, the slot stays taken until the function does. Without a timeout the function runs
    in the caller's own task, which saves the making of one: there `run` ends when the function does."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._occupancy = Occupancy()
        self._running: set[asyncio.Task[bytes]] = set()
        self._inline: set[asyncio.Task[Any]] = set()

    @property
    def busy(self) -> int:
        return self._occupancy.busy

    @property
    def abandoned(self) -> int:
        return self._occupancy.abandoned

    def run(self, call: Call) -> Coroutine[Any, Any, bytes]:
        return self._run_inline(call) if call.timeout_ms is None else self._run_apart(call)

    async def _run_apart(self, call: Call) -> bytes:
        self._occupancy.enter(call)
        # A task of its own, so that a function which swallows its cancellation holds up nobody else.
        task = asyncio.create_task(_call(call), name=f"callboard:{call.context.job_id}")
        self._running.add(task)
        try:
            done, _ = await asyncio.wait({task}, timeout=call.timeout_seconds)
        except asyncio.CancelledError:
            self._stop(call, task)
            raise
        if done:
            self._running.discard(task)
            self._occupancy.leave(call)
            return _outcome(task)
        self._stop(call, task)
        raise TaskTimeout(call.timeout_seconds or 0)

    async def _run_inline(self, call: Call) -> bytes:
        self._occupancy.enter(call)
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._inline.add(task)
        try:
            return await _call(call)
        except asyncio.CancelledError as error:
            if task in self._inline:
                raise
            task.uncancel()  # by `close`
            raise TaskExited(error) from error
        finally:
            self._inline.discard(task)
            self._occupancy.leave(call)

    async def close(self, grace_seconds: float) -> None:
        self._occupancy.closed = True
        if not await self._occupancy.drained(grace_seconds):
            inline = list(self._inline)
            self._inline.clear()
            for task in [*self._running, *inline]:
                task.cancel()

    def _stop(self, call: Call, task: asyncio.Task[bytes]) -> None:
        call.context.cancel()
        task.cancel()
        self._occupancy.abandoned += 1
        task.add_done_callback(lambda ended: self._stopped(call, ended))

    def _stopped(self, call: Call, task: asyncio.Task[bytes]) -> None:
        if not task.cancelled():
            task.exception()  # its outcome interests nobody any more; asyncio would log it as never retrieved
        self._running.discard(task)
        self._occupancy.abandoned -= 1
        self._occupancy.leave(call)


def _outcome(task: asyncio.Task[bytes]) -> bytes:
    if task.cancelled():  # by `close`
        raise TaskExited(asyncio.CancelledError())
    return task.result()


async def _call(call: Call) -> bytes:
    positional, named = call.signature.bind_json(call.args, call.kwargs).call_with(call.context)
    try:
        value = await call.function(*positional, **named)
    except asyncio.CancelledError as error:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]
            raise
        raise TaskExited(error) from error  # the function awaited something that somebody else cancelled
    except Exception:
        raise
    except BaseException as error:
        raise TaskExited(error) from error  # asyncio would end the loop for a SystemExit
    return encode_result(value, call.result_limit)
