"""Producers stand outside: what keeps the jobs makes no difference to them, so Redis alone does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from path.place import Place


@pytest.fixture
async def place(amqp_url: str, redis_url: str) -> AsyncIterator[Place]:
    place = Place(broker=amqp_url, store=redis_url)
    yield place
    await place.clean()
