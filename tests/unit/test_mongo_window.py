"""How long a mark on MongoDB waits for the claims that missed it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard.metadata.mongo.window import outlast

WINDOW = 40


class Server:
    claim_window = WINDOW

    def __init__(self, clock: int) -> None:
        self._clock = clock

    async def clock(self) -> int:
        return self._clock


@pytest.mark.parametrize("age", [WINDOW, 1_000 * WINDOW])
async def test_a_mark_that_a_majority_acknowledged_late_still_waits_for_claims_that_were_shown_what_was_before(
    age: int,
) -> None:
    server: Any = Server(clock=1_000_000 + age)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await outlast(server, 1_000_000)
    assert loop.time() - began >= 0.9 * WINDOW / 1000
