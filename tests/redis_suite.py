"""The store's conformance suite on a Redis of any kind, each store in a namespace of its own."""

from __future__ import annotations

from collections.abc import Sequence

from callboard.metadata.contract import Store
from callboard.metadata.redis import RedisStore
from callboard.runtime.testing.stores import StoreConformance
from redis_space import RedisSpace


class OnRedis:
    """Any part of the suite. A subclass has a fixture that calls `use` with the URL of its servers."""

    def use(self, url: str, *, nodes: Sequence[str] = ()) -> None:
        self._url = url
        self._nodes = nodes
        self._spaces: dict[Store, RedisSpace] = {}

    async def make_store(self) -> RedisStore:
        space = RedisSpace(self._url, nodes=self._nodes)
        store = space.store()
        self._spaces[store] = space
        return store

    async def make_peer(self, store: Store) -> RedisStore:
        return self._spaces[store].store()

    async def leftovers(self, store: Store) -> Sequence[str]:
        return [key.decode() for key in await self._spaces[store].queue_keys()]

    async def discard(self, store: Store) -> None:
        for space in self._spaces.values():
            await space.delete()


class RedisConformance(OnRedis, StoreConformance):
    """All of it."""
