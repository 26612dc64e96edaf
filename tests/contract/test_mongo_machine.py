"""Random operations on the MongoDB store, each answer and record compared with a plain model's."""

from __future__ import annotations

import pytest

from callboard.metadata.contract import Store
from callboard.metadata.mongo import MongoStore
from callboard.runtime.clock import SystemClock
from callboard.runtime.testing.store_machine import check_store
from mongo_space import MongoSpace

TWO_DAYS = 2 * 24 * 3600 * 1000  # ms: the machine's clock moves in the past of the server's


# Each server and each driver once; the other pairs, which the conformance suite has asked, in tests/soak.
@pytest.mark.parametrize(
    ("server", "driver"),
    [
        ("mongo_url", "pymongo"),
        ("mongo_replica_url", "motor"),
        pytest.param("mongo_url", "motor", marks=pytest.mark.soak),
        pytest.param("mongo_replica_url", "pymongo", marks=pytest.mark.soak),
    ],
)
@pytest.mark.slow
def test_the_mongodb_store_does_what_the_oracle_does(request: pytest.FixtureRequest, server: str, driver: str) -> None:
    url = request.getfixturevalue(server)
    spaces: dict[Store, MongoSpace] = {}

    async def make() -> MongoStore:
        space = MongoSpace(url, driver, again=True)
        store = space.store()
        spaces[store] = space
        return store

    async def discard(store: Store) -> None:
        await spaces.pop(store).delete()

    check_store(make, start=SystemClock().now() - TWO_DAYS, discard=discard, examples=20)
    assert not spaces
