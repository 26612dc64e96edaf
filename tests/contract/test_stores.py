"""The conformance suite on every store of the house."""

from __future__ import annotations

from callboard.metadata.memory import MemoryStore
from callboard.runtime.testing.stores import StoreConformance


class TestMemoryStore(StoreConformance):
    async def make_store(self) -> MemoryStore:
        return MemoryStore.from_url("memory://", namespace="contract")
