"""Random operations on the Redis store, each answer and record compared with a plain model's."""

from __future__ import annotations

from callboard.metadata.contract import Store
from callboard.metadata.redis import RedisStore
from callboard.runtime.clock import SystemClock
from callboard.runtime.testing.store_machine import check_store
from redis_space import RedisSpace

TWO_DAYS = 2 * 24 * 3600 * 1000  # ms: the machine's clock moves in the past of the server's


def test_the_redis_store_does_what_the_oracle_does(redis_url: str) -> None:
    spaces: dict[Store, RedisSpace] = {}

    async def make() -> RedisStore:
        space = RedisSpace(redis_url)
        store = space.store()
        spaces[store] = space
        return store

    async def discard(store: Store) -> None:
        await spaces.pop(store).delete()

    check_store(make, start=SystemClock().now() - TWO_DAYS, discard=discard, examples=40)
    assert not spaces
