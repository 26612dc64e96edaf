"""Keeps a worker's lease by raising its counter every quarter of the lease, also while the event loop is held up.

The beats come from a thread with a store connection of its own, so that a handler which blocks the loop does not cost
the lease; with `heartbeat="process"` from a process of its own, which not even a call that holds the interpreter's lock
delays. A loop that stands still for PATIENCE_SECONDS is given up: it may never run again, and others should have its
jobs. When it does, the beats go on, and their answers say what became of the lease. A store that lives in this process
alone is beaten from the loop itself: nobody outlives it there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..metadata.contract import Heartbeat, Store, Workers
from ..metadata.errors import MetadataError
from .connections import Connections
from .loop_watch import Standstill
from .sibling import Sibling

log = logging.getLogger("callboard.heart")

PATIENCE_SECONDS = 60.0  # or the lease, if that is longer
END_SECONDS = 10.0  # for a beat that is under way when the heart is stopped

Beaten = Callable[[str, Heartbeat, float], None]  # boot id, reply, `clock.elapsed()` when the beat was sent


class Heart:
    """In the loop that called `start`, `beaten` is called after each beat that was answered, and `failed` where the
    heart ended for another reason than a store that is away."""

    def __init__(
        self,
        connections: Connections,
        *,
        queues: Sequence[str],
        info: Callable[[], bytes],
        beaten: Beaten,
        failed: Callable[[BaseException], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._connections = connections
        self._queues = tuple(queues)
        self._info = info
        self._beaten = beaten
        self._failed = failed
        self._interval = connections.settings.lease_seconds / 4
        self._patience = max(patience, connections.settings.lease_seconds)
        self._given_up = False
        self._boot = ""
        self._thread: threading.Thread | None = None
        self._thread_over = asyncio.Event()
        self._sibling: Sibling | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def start(self, boot: str) -> None:
        self._boot = boot
        loop = asyncio.get_running_loop()
        if not self._connections.store.shared:
            self._task = loop.create_task(self._beat_here(loop))
            return
        if self._connections.settings.heartbeat == "process":
            self._sibling = Sibling(
                self._connections.settings,
                queues=self._queues,
                info=self._info,
                beaten=self._beaten,
                failed=self._failed,
                patience=self._patience,
            )
            self._sibling.start(boot)
            return
        standstill = Standstill(self._connections.clock, step=self._interval, runs_again=self._loop_runs)
        self._thread = threading.Thread(
            target=self._beat_in_thread, args=(loop, standstill), name="callboard-heart", daemon=True
        )
        self._thread.start()

    def renew(self, boot: str) -> None:
        """Go on under another boot id, with a beat at once."""
        self._boot = boot
        if self._sibling is not None:
            self._sibling.renew(boot)
        self._hurry()

    async def stop(self) -> None:
        """No beat after this."""
        self._stop.set()
        self._hurry()
        if self._sibling is not None:
            await self._sibling.stop()
        if self._thread is not None:
            # Not by `to_thread`: handlers may have taken all threads of the loop, for as long as they like.
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._thread_over.wait()
        if self._task is not None:
            await self._task

    def _hurry(self) -> None:
        if self._wake is not None:
            loop, event = self._wake
            with suppress(RuntimeError):  # the heart has failed, and its loop is closed
                loop.call_soon_threadsafe(event.set)

    def _beat_in_thread(self, main: asyncio.AbstractEventLoop, standstill: Standstill) -> None:
        try:
            asyncio.run(self._beat_alone(main, standstill))
        except Exception as error:  # of its loop, its connection or a beat: a thread ending in silence costs the lease
            main.call_soon_threadsafe(self._ended_by, error)
        finally:
            with suppress(RuntimeError):  # the worker's loop is closed: nobody waits
                main.call_soon_threadsafe(self._thread_over.set)

    async def _beat_here(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self._beat(self._connections.store, loop)
        except Exception as error:  # nobody waits for this task before the worker ends
            self._ended_by(error)

    def _ended_by(self, error: Exception) -> None:
        if self._stop.is_set():
            log.warning("the heart failed while it was being stopped: %s: %s", type(error).__name__, error)
        else:
            self._failed(error)

    async def _beat_alone(self, main: asyncio.AbstractEventLoop, standstill: Standstill) -> None:
        store = self._connections.another_store()
        try:
            await self._beat(store, main, standstill)
        finally:
            await store.close()

    async def _beat(self, store: Store, main: asyncio.AbstractEventLoop, standstill: Standstill | None = None) -> None:
        """`standstill`: of the worker's loop, where the beats come from another one, whose store is to be opened."""
        clock = self._connections.clock
        wake = asyncio.Event()
        self._wake = (asyncio.get_running_loop(), wake)
        opened, failing = standstill is None, False
        while not self._stop.is_set():
            wake.clear()
            boot, sent = self._boot, clock.elapsed()
            try:
                if standstill is None or not self._gives_up(standstill):
                    if not opened:
                        await store.open()
                        opened = True
                    reply = await store.get(Workers).heartbeat(boot, self._queues, info=self._info(), now=clock.now())
                    if failing:
                        log.warning("heartbeats go on")
                    failing = False
                    main.call_soon_threadsafe(self._beaten, boot, reply, sent)
            except MetadataError as error:
                if not failing:
                    log.warning("no heartbeat: %s", error)
                failing = True
            try:
                # A store that is away is asked more often: the lease runs.
                async with asyncio.timeout(min(self._interval, 0.5) if failing else self._interval):
                    await wake.wait()
            except TimeoutError:
                pass

    def _gives_up(self, standstill: Standstill) -> bool:
        """Whether the worker's loop has stood still for too long; what changes is told."""
        seconds = standstill.ask()
        given_up, self._given_up = self._given_up, seconds >= self._patience
        if self._given_up and not given_up:
            log.error(
                "the event loop has not run for %.0f s, held up by %s; no heartbeat until it runs again, so others "
                "will have its jobs after the lease of %g s; await what waits, and compute in a task that is not "
                "async, or has executor='process'",
                seconds,
                standstill.where(),
                self._connections.settings.lease_seconds,
            )
        elif given_up and not self._given_up:
            log.warning("the event loop runs again; heartbeats go on")
        return self._given_up

    def _loop_runs(self) -> None:
        if self._given_up:
            self._hurry()
