"""Keeps one connection up: a loop that connects, sets up, waits for the loss, and connects again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random

from ..errors import BrokerError
from .link import Link
from .news import News

BACKOFF_SECONDS = 0.2
BACKOFF_LIMIT_SECONDS = 5.0
# A connection or consumer that ended sooner than this counts as one more failure: no hot loop with a server that
# accepts and closes.
STEADY_SECONDS = 5.0

log = logging.getLogger(__name__)


def report(task: asyncio.Task[None]) -> None:
    """A task of ours that nobody awaits ended by a fault of ours: say so."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("A task of the broker ended", exc_info=error)


class Backoff:
    """The first repetition at once, then full jitter up to a limit that doubles to 5 s."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures = 0

    def succeeded(self) -> None:
        self._failures = 0

    def next_delay(self) -> float:
        limit = min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2 ** min(self._failures - 1, 10)) if self._failures else 0
        self._failures += 1
        return self._random.uniform(0, limit)


class Keeper:
    """`set_up(link)` makes a fresh connection usable; where it raises a BrokerError, the connection is given up."""

    def __init__(
        self,
        *,
        connect: Callable[[], Link],
        set_up: Callable[[Link], Awaitable[None]],
        changed: Callable[[], None],
        random: Random,
    ) -> None:
        self.link: Link | None = None
        self._connect = connect
        self._set_up = set_up
        self._changed = changed
        self._backoff = Backoff(random)
        self._news = News()
        self._tries = 0
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def ready(self) -> bool:
        """Connected and set up."""
        return self.link is not None and self.link.up

    async def open(self) -> None:
        """The first connection; BrokerUnavailable where it fails. From then on it is kept up."""
        self._closing = False
        await self._connect_once()
        self._task = asyncio.get_running_loop().create_task(self._keep())
        self._task.add_done_callback(report)

    async def close(self) -> None:
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        link, self.link = self.link, None
        if link is not None:
            await link.close()

    async def _connect_once(self) -> None:
        link = self._connect()
        await link.open()
        try:
            await self._set_up(link)
        except BaseException:
            link.abort()
            raise
        self.link = link
        self._changed()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        # A cancellation that meets the failure of a connection attempt comes out of aiormq as that failure.
        while not self._closing:
            if self.link is not None:
                since = loop.time()
                await asyncio.wait([self.link.lost])  # which does not cancel it together with this task
                log.warning("The connection %s to %s was lost: %s", self.link.name, self.link.broker, self.link.reason)
                self.link.abort()
                self.link = None
                self._changed()
                if loop.time() - since >= STEADY_SECONDS:
                    self._backoff.succeeded()
            await asyncio.sleep(self._backoff.next_delay())
            try:
                self._tries += 1
                await self._connect_once()
            except BrokerError as error:
                if self._news.is_new(str(error), loop.time()):
                    log.warning("Connecting again failed, and is tried until it succeeds: %s", error)
            else:
                if self._news.over() and self.link is not None:
                    log.info("The connection %s is back, at try %d", self.link.name, self._tries)
                self._tries = 0
