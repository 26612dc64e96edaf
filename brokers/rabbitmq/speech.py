"""How a subscription speaks with the server on its channel: in our frames (fast.py) or in aiormq's (plain.py)."""

from __future__ import annotations

from typing import Protocol

from .delivery import RabbitMQDelivery, Settler
from .settling import Settled


class Told(Settler, Protocol):
    """Who is told what a channel brings: from within the reading of the socket, or in a task of aiormq's."""

    def arrived(self, delivery: RabbitMQDelivery) -> None: ...

    def ended(self, code: int, reason: str) -> None:
        """As Listener.ended says."""
        ...


class Speech(Protocol):
    """For one channel. It listens from the beginning, until `forget`."""

    async def consume(self, queue: str, *, exclusive: bool, tag: str) -> None: ...

    def settle(self, settled: Settled) -> None: ...

    async def flushed(self) -> None:
        """What `settle` was given is on its way before whatever is sent next."""
        ...

    def forget(self) -> None: ...
