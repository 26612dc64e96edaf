"""What an actor says of a store that is away, while it repeats what it asked."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from callboard import Callboard
from callboard.actors.retention import Retention
from callboard.metadata.errors import StoreUnavailable
from callboard.runtime.actor import Options, Stage

CALLS = 5


class Answers:
    """Of a store that is away until it is told to be back."""

    def __init__(self) -> None:
        self.away = True
        self.refused = 0

    async def ask(self) -> str:
        if self.away:
            self.refused += 1
            raise StoreUnavailable("mongodb://there", "no primary")
        return "yes"


async def test_an_outage_that_many_calls_meet_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with Callboard(broker="memory://", store="memory://") as app:
        stage = Stage(Retention, app, Options(), random=Random(1))
        caplog.clear()
        for outage in (1, 2):
            store = Answers()
            asking = [asyncio.create_task(stage.patiently(store.ask)) for _ in range(CALLS)]
            async with asyncio.timeout(60):
                while store.refused < CALLS:
                    await asyncio.sleep(0)
                store.away = False
                assert await asyncio.gather(*asking) == ["yes"] * CALLS
            told = [record.getMessage() for record in caplog.records]
            assert told == outage * [
                f"{StoreUnavailable('mongodb://there', 'no primary')}; trying again",
                "the store is back",
            ]
