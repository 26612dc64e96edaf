"""Looks at the store's settings again and again. What is wrong when a process starts is told then; this tells of what
somebody changes on a running server, such as a policy that makes it drop jobs when it is full.

Each process that runs stalled-recovery does so, as with the queues' gauges: with replicas, each of them tells it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..metadata.contract import Check, Store
from ..metadata.errors import MetadataError, StoreUnavailable
from .clock import Clock

INTERVAL_SECONDS = 10.0

log = logging.getLogger("callboard.store")


class StoreWatch:
    """`known`: what was found when the store was opened, and told by whoever opened it."""

    def __init__(
        self, store: Store, clock: Clock, *, known: Sequence[Check], interval: float = INTERVAL_SECONDS
    ) -> None:
        self._store = store
        self._clock = clock
        self._known = tuple(known)
        self._interval = interval
        self._failure = ""
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Tell what has come and what has gone since the last look. Nothing while the store is away: those who work
        with it tell that."""
        try:
            found = tuple(await self._store.check())
        except StoreUnavailable:
            return
        except MetadataError as error:  # a right that was taken away, say
            if str(error) != self._failure:
                log.warning("store: its settings cannot be looked at any more: %s", error)
            self._failure = str(error)
            return
        except Exception as error:  # nobody foresaw it: told, and looked again, since nobody waits for this
            if repr(error) != self._failure:
                log.exception("store: a look at its settings failed")
            self._failure = repr(error)
            return
        self._failure = ""
        for check in found:
            if check not in self._known:
                if check.refuse:
                    log.error("store: %s; a process that starts now refuses it", check.message)
                else:
                    log.warning("store: %s", check.message)
        for check in self._known:
            if check not in found:
                log.info("store: no longer so: %s", check.message)
        self._known = found

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look_now_and_then())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._looking is not None
        self._looking.cancel()
        with suppress(asyncio.CancelledError):
            await self._looking

    async def _look_now_and_then(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            await self.look()
