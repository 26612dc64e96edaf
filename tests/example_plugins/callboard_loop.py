"""A broker as a third party would bring one: here the one in memory, under another name."""

from __future__ import annotations

from typing import ClassVar, Self

from callboard.brokers.memory import MemoryBroker


class LoopBroker(MemoryBroker):
    scheme: ClassVar[str] = "loop"

    @classmethod
    def from_url(cls, url: str, *, name: str) -> Self:
        return super().from_url(url.replace(cls.scheme, MemoryBroker.scheme, 1), name=name)
