"""A connection that hears what is published on channels, and does nothing else.

What is published reaches whoever is subscribed at that moment, in order, once. What was on its way when the connection
is lost is lost with it, and nothing of it comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from .address import Address
from .pipe import PING, Pipe, Where, encode


class Ear(Pipe):
    """`heard` is called with channel and message, `deaf` once, when the connection is lost; it makes no other."""

    def __init__(
        self, address: Address, *, where: Where, heard: Callable[[bytes, bytes], None], deaf: Callable[[], None]
    ) -> None:
        super().__init__(address, where=where)
        self._heard = heard
        self._deaf = deaf
        self._over = False

    async def subscribe(self, channels: Sequence[bytes]) -> None:
        """From now on. As `Pipe.ask` raises."""
        await self.ask([encode(b"SUBSCRIBE", channel) for channel in channels])

    async def sync(self) -> None:
        """Return once all has been heard that was published before, or is lost."""
        if self._usable:
            with suppress(RedisError, OSError):
                await self.ask([PING])

    async def close(self) -> None:
        self._over = True
        await super().close()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self._over:
            self._over = True
            self._deaf()

    def _take(self, answer: Any) -> None:
        if type(answer) is list and answer[0] == b"message":
            self._heard(answer[1], answer[2])
        else:
            super()._take(answer)
