"""Random operations on every store of the house, each answer and record compared with a plain model's."""

from __future__ import annotations

from callboard.metadata.contract import Store
from callboard.metadata.memory import MemoryStore
from callboard.runtime.clock import SystemClock
from callboard.runtime.testing.store_machine import check_store
from callboard.runtime.testing.store_scene import DAY


def test_the_memory_store_does_what_the_oracle_does() -> None:
    async def make() -> Store:
        return MemoryStore.from_url("memory://", namespace="machine")

    check_store(make, start=SystemClock().now() - 2 * DAY)
