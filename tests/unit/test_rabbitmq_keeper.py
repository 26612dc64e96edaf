"""A connection that cannot be made again is tried until it can, and told of once."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import cast

import pytest

from callboard.brokers.errors import BrokerUnavailable
from callboard.brokers.rabbitmq.keeper import Keeper
from callboard.brokers.rabbitmq.link import Link

TRIES = 20


class AtOnce(Random):
    """No pause between two tries."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Refusing:
    """Links of which the first and the last can be opened."""

    def __init__(self) -> None:
        self.made: list[Refusing.One] = []
        self.back = asyncio.Event()

    def connect(self) -> Link:
        self.made.append(Refusing.One(refused=0 < len(self.made) <= TRIES))
        return cast(Link, self.made[-1])

    async def set_up(self, _: Link) -> None:
        if len(self.made) > 1:
            self.back.set()

    class One:
        name, broker, reason = "mine", "amqp://here", "cut"

        def __init__(self, *, refused: bool) -> None:
            self.refused = refused
            self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def open(self) -> None:
            if self.refused:
                raise BrokerUnavailable(self.broker, "530 NOT_ALLOWED")

        def abort(self) -> None:
            """There is nothing to end."""

        async def close(self) -> None:
            """Nor here."""


async def test_refused_again_and_again_is_one_line_and_its_end_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    links = Refusing()
    keeper = Keeper(connect=links.connect, set_up=links.set_up, changed=lambda: None, random=AtOnce())
    await keeper.open()
    links.made[0].lost.set_result(None)
    async with asyncio.timeout(60):
        await links.back.wait()
        await asyncio.sleep(0)
    await keeper.close()
    assert len(links.made) == TRIES + 2
    assert [record.getMessage() for record in caplog.records] == [
        "The connection mine to amqp://here was lost: cut",
        "Connecting again failed, and is tried until it succeeds: broker amqp://here is unavailable: 530 NOT_ALLOWED",
        f"The connection mine is back, at try {TRIES + 1}",
    ]
