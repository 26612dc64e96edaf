from __future__ import annotations

import asyncio

from callboard.brokers.message import Message
from callboard.runtime.testing import running
from path.place import Place


async def test_beyond_their_number_the_oldest_letters_are_removed(place: Place) -> None:
    async with place.open(dead_letter_count=10) as app:
        broker, names = app.connections.broker, app.connections.names
        await broker.publish(
            [Message(exchange=names.dead, routing_key="x", body=b"%d" % number) for number in range(25)], timeout=10
        )
        async with running(app, actors=["retention"]), asyncio.timeout(60):
            while (depth := await broker.depth(names.dead)) is None or (depth.ready, depth.consumers) != (10, 0):
                await asyncio.sleep(0.05)
        found: list[bytes] = []
        consumer = await broker.consume(names.dead, lambda delivery: found.append(delivery.body), prefetch=20)
        async with asyncio.timeout(60):
            while len(found) < 10:
                await asyncio.sleep(0.02)
        await consumer.cancel()
        assert found == [b"%d" % number for number in range(15, 25)]


async def test_a_letter_is_gone_when_its_age_is_over(place: Place) -> None:
    async with place.open(dead_letter_seconds=1) as app:
        broker, names = app.connections.broker, app.connections.names
        async with running(app, actors=["intake"]), asyncio.timeout(60):
            await broker.publish([Message(exchange=names.submit, routing_key="emails", body=b"nope")], timeout=10)
            while (depth := await broker.depth(names.dead)) is None or depth.ready != 1:
                await asyncio.sleep(0.02)
            while (depth := await broker.depth(names.dead)) is None or depth.ready:
                await asyncio.sleep(0.05)
