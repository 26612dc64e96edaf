from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from callboard import Callboard
from path.place import Errors, Place


@pytest.fixture(params=["memory", "rabbitmq+redis", "rabbitmq+mongodb"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        place = Place(broker="memory://", store="memory://")
    else:
        store = {"rabbitmq+redis": "redis_url", "rabbitmq+mongodb": "mongo_url"}[request.param]
        place = Place(broker=request.getfixturevalue("amqp_url"), store=request.getfixturevalue(store))
    await place.prepare()
    errors = Errors(place)
    logging.getLogger().addHandler(errors)
    try:
        yield place
    finally:
        logging.getLogger().removeHandler(errors)
        await place.clean()
    assert place.errors == []


@pytest.fixture
async def app(place: Place) -> AsyncIterator[Callboard]:
    """Open, and looked through for leftovers when the test is over."""
    async with place.open() as app:
        yield app
