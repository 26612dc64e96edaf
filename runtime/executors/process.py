"""Runs calls in child processes, which a timeout or a cancellation can kill together with all that they started.

Children start when they are first needed and are used again. A call that ends its child (os._exit, a segfault, the
kernel's memory killer) fails alone; the next one gets a new child. What is said between the two is in frames.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from ..arguments import ArgumentsInvalid
from ..results import RemoteFailure, ResultInvalid, ResultTooLarge
from ..retry import Retry
from . import frames
from .child_process import ChildProcess, Limits
from .contract import Call, TaskTimeout, TaskUnreachable, WorkerProcessDied
from .importable import check_reachable, main_module, main_path
from .occupancy import Occupancy

LEASE_SECONDS = 1.0  # how soon a child's context shows that the lease became uncertain
GOODBYE_SECONDS = 2.0  # for an idle child's own exit handlers at `close`
# A child runs one function; it has no business with the servers, and what it runs may be less trusted than the worker.
# Not removed but replaced, so that a main module that reads them can still be loaded.
WITHHELD = ("CALLBOARD_BROKER", "CALLBOARD_STORE")


class ProcessExecutor:
    def __init__(
        self,
        size: int,
        *,
        limits: Limits | None = None,
        calls_per_child: int | None = None,
        cancel_grace_seconds: float = 0.5,
        environment: Mapping[str, str] | None = None,
        log_level: int | None = None,
    ) -> None:
        """`size`: the most children at once. `calls_per_child` None: a child is used until it dies.

        `cancel_grace_seconds`: what a cancelled call gets to end by itself (its context says so, its coroutine is
        cancelled) before it is killed; a timeout kills at once. `environment` None: this process's, with the addresses
        of broker and store replaced by memory://. `log_level`: children log from it on, as JSON; None: as they like.
        """
        self._limits = limits or Limits()
        self._calls_per_child = calls_per_child
        self._cancel_grace_seconds = cancel_grace_seconds
        self._environment = environment
        self._log_level = log_level
        self._occupancy = Occupancy()
        self._slots = asyncio.Semaphore(size)
        self._idle: list[ChildProcess] = []
        self._children: set[ChildProcess] = set()
        self._cleaning: set[asyncio.Task[None]] = set()
        self._number = 0

    @property
    def busy(self) -> int:
        return self._occupancy.busy

    @property
    def abandoned(self) -> int:
        return self._occupancy.abandoned

    @property
    def pids(self) -> list[int]:
        """Of the children that live."""
        return sorted(child.pid for child in self._children if child.alive)

    async def run(self, call: Call) -> bytes:
        """As in contract.py. The timeout does not count the start of a child."""
        self._occupancy.enter(call)
        try:
            location = check_reachable(call.function)
            await self._slots.acquire()
        except (TaskUnreachable, asyncio.CancelledError):
            self._occupancy.leave(call)
            raise
        try:
            child = await self._child()
        except BaseException:
            self._free(call)
            raise
        self._number += 1
        order = frames.Run(
            number=self._number,
            module=location.module,
            qualname=location.qualname,
            args=Raw(call.args),
            kwargs=Raw(call.kwargs),
            about=_about(call),
            result_limit=call.result_limit,
        )
        lease = asyncio.create_task(_tell_lease(child, call))
        try:
            async with asyncio.timeout(call.timeout_seconds):
                outcome = await child.call(order, lambda value: call.context.progress(msgspec.json.decode(value)))
        except TimeoutError:
            child.kill()
            self._leave_behind(call, child, grace_seconds=0)
            raise TaskTimeout(call.timeout_seconds or 0) from None
        except asyncio.CancelledError:
            child.tell(frames.Stop(number=order.number))
            self._leave_behind(call, child, grace_seconds=self._cancel_grace_seconds)
            raise
        except WorkerProcessDied:
            self._free(call)
            raise
        finally:
            lease.cancel()
        self._put_back(child)
        self._free(call)
        return _result(outcome)

    async def close(self, grace_seconds: float) -> None:
        """Returns when no child is left: not running, not a zombie, its socket closed."""
        self._occupancy.closed = True
        for child in self._idle:
            child.dismiss()
        if not await self._occupancy.drained(grace_seconds):
            for child in self._children - set(self._idle):
                child.kill()
        for child in self._idle:
            child.dismiss()  # those that became idle meanwhile
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._none_left()
        for child in self._children:
            child.kill()
        await self._none_left()
        await asyncio.gather(*self._cleaning)

    async def _none_left(self) -> None:
        for child in list(self._children):
            await child.gone.wait()

    async def _child(self) -> ChildProcess:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
        hello = frames.Hello(
            parent=os.getpid(),
            sys_path=[path or os.getcwd() for path in sys.path],
            main_path=main_path(),
            main_module=main_module(),
            memory_bytes=self._limits.memory_bytes,
            processes=self._limits.processes,
            log_level=self._log_level,
        )
        child = await ChildProcess.start(hello, self._child_environment())
        self._children.add(child)
        self._in_background(self._forget(child))
        return child

    async def _forget(self, child: ChildProcess) -> None:
        await child.gone.wait()
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)

    def _put_back(self, child: ChildProcess) -> None:
        worn = self._calls_per_child is not None and child.calls >= self._calls_per_child
        if worn or self._occupancy.closed:
            child.dismiss()
        elif child.alive:
            self._idle.append(child)

    def _free(self, call: Call) -> None:
        self._slots.release()
        self._occupancy.leave(call)

    def _leave_behind(self, call: Call, child: ChildProcess, *, grace_seconds: float) -> None:
        call.context.cancel()
        self._occupancy.abandoned += 1
        self._in_background(self._clean_up(call, child, grace_seconds))

    async def _clean_up(self, call: Call, child: ChildProcess, grace_seconds: float) -> None:
        try:
            if grace_seconds and await child.settle(grace_seconds):
                self._put_back(child)
            else:
                child.kill()
                await child.gone.wait()
        finally:
            self._occupancy.abandoned -= 1
            self._free(call)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    def _child_environment(self) -> Mapping[str, str]:
        if self._environment is not None:
            return self._environment
        own = {name: "memory://" if name in WITHHELD else value for name, value in os.environ.items()}
        # What a task printed before it was killed would otherwise be lost in its buffers.
        return own | {"PYTHONUNBUFFERED": "1"}


def _result(outcome: frames.Outcome) -> bytes:
    match outcome:
        case frames.Done(result=result):
            return bytes(result)
        case frames.Asked(after_ms=after_ms, reason=reason):
            raise Retry(None if after_ms is None else after_ms / 1000, reason)
        case frames.Refused(path=path, reason=why, value=value):
            raise ArgumentsInvalid(path=path, reason=why, value=value)
        case frames.NotJson(path=path, reason=why):
            raise ResultInvalid(path=path, reason=why)
        case frames.TooLarge(size=size, limit=limit):
            raise ResultTooLarge(size=size, limit=limit)
        case frames.Raised(error=error, class_names=class_names):
            raise RemoteFailure(error, class_names=class_names)


def _about(call: Call) -> frames.About:
    context = call.context
    return frames.About(
        job_id=context.job_id,
        queue=context.queue,
        task=context.task,
        attempt=context.attempt,
        dispatch=context.dispatch,
        fence=context.fence,
        worker=context.worker,
        meta=context.meta,
        traceparent=context.traceparent,
    )


async def _tell_lease(child: ChildProcess, call: Call) -> None:
    certain = True
    while True:  # for as long as the call takes: it is cancelled at its end
        if call.context.lease_uncertain is certain:
            certain = not certain
            child.tell(frames.Lease(certain=certain))
        await asyncio.sleep(LEASE_SECONDS)
