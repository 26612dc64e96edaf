"""A store whose data were lost under its feet has another epoch, and says so when it is asked again."""

from __future__ import annotations

from mongo_space import MongoSpace
from redis_space import RedisSpace


async def test_an_emptied_redis_is_of_another_epoch_for_all_who_ask_again(redis_url: str) -> None:
    space = RedisSpace(redis_url)
    stores = space.store(), space.store()
    for store in stores:
        await store.open()
    before = {store.epoch for store in stores}
    await space.delete()
    after = {await store.read_epoch() for store in stores}
    assert (len(before), len(after)) == (1, 1)
    assert before != after == {store.epoch for store in stores}
    for store in stores:
        await store.close()
    await space.delete()


async def test_an_emptied_mongodb_is_of_another_epoch_for_all_who_ask_again(mongo_url: str) -> None:
    space = MongoSpace(mongo_url)
    stores = space.store(), space.store()
    for store in stores:
        await store.open()
    before = {store.epoch for store in stores}
    space.remove({})
    after = {await store.read_epoch() for store in stores}
    assert (len(before), len(after)) == (1, 1)
    assert before != after == {store.epoch for store in stores}
    for store in stores:
        await store.close()
    await space.delete()
