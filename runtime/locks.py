"""`app.lock(name)`: one holder at a time, over all processes, with a fence for what the lock protects.

    async with app.lock("report/2026-07", ttl=30) as lock:
        await bucket.put(report, if_newer_than=lock.fence)

A holder that stands still for `ttl` may lose the lock and learn of it late: no lock can do better. So what must not be
written by two compares the fence, which grows each time the lock changes hands.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from contextlib import suppress
from random import Random, SystemRandom
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..metadata import leases
from ..metadata.errors import MetadataError, StoreUnavailable
from ..metadata.leases import Leases, Still
from .clock import Clock
from .errors import ConfigurationError, LockLost, LockTimeout

if TYPE_CHECKING:
    from .app import Callboard

log = logging.getLogger("callboard.locks")

LOOKS = 20  # of a waiter at the lock, in its ttl
LONGEST_PAUSE = 0.5  # seconds between two of them
_NAME = re.compile(r"[\x21-\x7e]{1,200}")
SHORTEST_TTL, LONGEST_TTL = 0.2, 24 * 3600.0


class Watched:
    """What a waiter has seen of a lock that somebody else holds, by its own clock."""

    def __init__(self) -> None:
        self._seen: Still | None = None
        self._since = 0.0
        self._last = 0.0

    def forget(self) -> None:
        self._seen = None

    def look(self, lock: leases.Lock, *, asked: float, answered: float) -> Still | None:
        """What stood still for the holder's ttl, over looks that were at most a quarter of it apart."""
        ttl = lock.ttl / 1000
        now = Still(lock.fence, lock.beat)
        if self._seen != now or answered - self._last > ttl / 4:
            self._seen, self._since = now, answered
        self._last = answered
        return now if asked - self._since >= ttl else None


class Lock:
    """Entered, it is held; what it is made of is in `Callboard.lock`."""

    def __init__(
        self, app: Callboard, name: str, *, ttl: float, timeout: float | None, random: Random | None = None
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"a lock's name is 1 to 200 printable characters of ASCII, no blanks: not {name!r}"
            )
        if not SHORTEST_TTL <= ttl <= LONGEST_TTL:
            raise ConfigurationError(
                f"ttl={ttl!r} of lock {name!r}: it must be from {SHORTEST_TTL:g} to {LONGEST_TTL:g} seconds"
            )
        self.name = name
        self.fence = 0
        self._app = app
        self._ttl = ttl
        self._timeout = timeout
        self._random = random or SystemRandom()
        self._holder = ""
        self._certain_until = 0.0
        self._gone = False
        self._renewing: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        """Somebody else may hold it by now: it could not be renewed for its ttl, or another one has taken it."""
        return self._gone or self._clock.elapsed() >= self._certain_until

    async def __aenter__(self) -> Self:
        """Wait until it is ours. Raises LockTimeout, and StoreUnavailable where the store is away and no `timeout` was
        given to wait for it."""
        if self._renewing is not None:
            raise ConfigurationError(f"lock {self.name!r} is entered already; call app.lock(...) for each `async with`")
        self._holder, self._gone = secrets.token_hex(16), False
        try:
            async with asyncio.timeout(self._timeout):
                await self._take()
        except TimeoutError:
            await self._withdraw()
            raise LockTimeout(self.name, seconds=self._timeout or 0.0) from None
        except asyncio.CancelledError:
            await asyncio.shield(self._withdraw())
            raise
        self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises LockLost where the block ended well and was not alone all the time, or cannot know."""
        assert self._renewing is not None
        self._renewing.cancel()
        with suppress(asyncio.CancelledError):
            await self._renewing
        self._renewing = None
        was_lost = self.lost
        released = await self._release()
        if kind is None and (was_lost or released is False):
            raise LockLost(self.name, fence=self.fence)

    # --- getting it ---

    async def _take(self) -> None:
        watched, still = Watched(), None
        failures = 0
        while True:  # until it is ours, or the timeout ends it
            asked = self._clock.elapsed()
            try:
                lock = await self._leases.take(
                    self.name, self._holder, ttl=round(self._ttl * 1000), still=still, now=self._clock.now()
                )
            except StoreUnavailable:
                if self._timeout is None:
                    raise
                watched.forget()
                still, failures = None, failures + 1
                await self._clock.sleep(self._random.uniform(0, min(2.0, 0.1 * 2.0 ** min(failures, 8))))
                continue
            if lock.granted:
                self.fence = lock.fence
                self._certain_until = asked + self._ttl
                return
            still = watched.look(lock, asked=asked, answered=self._clock.elapsed())
            if still is None:
                pause = min(LONGEST_PAUSE, lock.ttl / 1000 / LOOKS)
                await self._clock.sleep(pause * self._random.uniform(0.5, 1.0))

    async def _withdraw(self) -> None:
        """The wait is over, but a `take` whose answer was not awaited may have succeeded: nobody should have to wait
        for its ttl."""
        with suppress(MetadataError):  # the wait's own end is what is told
            lock = await self._leases.take(
                self.name, self._holder, ttl=round(self._ttl * 1000), still=None, now=self._clock.now()
            )
            if lock.granted:
                self.fence = lock.fence
                await self._release()

    # --- keeping it ---

    async def _renew(self) -> None:
        failing = False
        while not self._gone:
            await self._clock.sleep(self._ttl / 4)
            sent = self._clock.elapsed()
            try:
                kept = await self._leases.renew(self.name, self._holder, fence=self.fence)
            except MetadataError as error:  # also a fault may pass within the ttl; `lost` says when it did not
                if not failing:
                    log.warning("lock %s is not renewed: %s", self.name, error)
                failing = True
                continue
            failing = False
            if kept:
                self._certain_until = sent + self._ttl
            else:
                self._gone = True
                log.warning("lock %s, fence %d, was taken by another holder", self.name, self.fence)

    async def _release(self) -> bool | None:
        """None: the store did not say; whoever waits gets it after its ttl."""
        try:
            return await self._leases.release(self.name, self._holder, fence=self.fence, now=self._clock.now())
        except MetadataError as error:
            log.warning("lock %s is not released: %s", self.name, error)
            return None

    @property
    def _leases(self) -> Leases:
        return self._app.connections.store.get(Leases)

    @property
    def _clock(self) -> Clock:
        return self._app.clock
