"""The memory store: the whole contract in one process, for development, tests and the simulator.

It keeps nothing across a restart and shares nothing between processes, and says so (`durable`, `shared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random, SystemRandom
from typing import ClassVar, Self, TypeVar, cast

from ..contract import (
    Check,
    Deduplicating,
    Delays,
    Inspection,
    Jobs,
    QueueControl,
    Retention,
    Workers,
)
from ..errors import CapabilityMissing, StoreRefused
from ..leases import Leases
from ..schedules import Schedules
from ..standing import StandingClaims
from .control import MemoryDeduplicating, MemoryQueueControl, MemoryRetention
from .inspection import MemoryInspection
from .jobs import MemoryDelays, MemoryJobs
from .leases import MemoryLeases
from .schedules import MemorySchedules
from .standing import MemoryStandingClaims
from .state import Queues
from .workers import MemoryWorkers

__all__ = ["MemoryStore"]

C = TypeVar("C")


class MemoryStore:
    """A store whose clock is the caller's: a fence's store time is the `now` of its claim."""

    scheme: ClassVar[str] = "memory"
    shared: ClassVar[bool] = False
    server_time: ClassVar[bool] = False

    def __init__(self, *, namespace: str = "callboard", random: Random | None = None) -> None:
        self.namespace = namespace
        self._epoch = f"{(random or SystemRandom()).getrandbits(128):032x}"
        queues = Queues()
        self._offers: dict[type, object] = {
            Jobs: MemoryJobs(queues),
            Delays: MemoryDelays(queues),
            Workers: MemoryWorkers(queues),
            Deduplicating: MemoryDeduplicating(queues),
            QueueControl: MemoryQueueControl(queues),
            Inspection: MemoryInspection(queues),
            Retention: MemoryRetention(queues),
            Schedules: MemorySchedules(queues),
            Leases: MemoryLeases(),
            StandingClaims: MemoryStandingClaims(queues),
        }

    @classmethod
    def from_url(cls, url: str, *, namespace: str) -> Self:
        """`memory://`: every call makes an empty store of its own."""
        if url.partition(":")[0] != cls.scheme or url.partition("://")[2]:
            raise StoreRefused(f"the memory store's URL is memory:// and nothing else, not {url!r}")
        return cls(namespace=namespace)

    @property
    def durable(self) -> bool:
        return False

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def version(self) -> str:
        return ""

    @property
    def capabilities(self) -> frozenset[type]:
        return frozenset(self._offers)

    def get(self, capability: type[C]) -> C:
        offer = self._offers.get(capability)
        if offer is None:
            raise CapabilityMissing(capability=capability.__name__, store=self.scheme)
        return cast(C, offer)

    async def open(self) -> None:
        """Nothing to connect to. A store that was closed still holds its jobs."""

    async def read_epoch(self) -> str:
        return self._epoch

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def check(self) -> Sequence[Check]:
        return [Check("memory", "jobs are kept in this process only and are lost when it ends")]
