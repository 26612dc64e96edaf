"""The intake where something on this side goes wrong: the actor fails, the store is away, a check of the app raises."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from callboard import Callboard
from callboard.brokers.message import Delivery, Message, Receipt
from callboard.metadata.errors import StoreUnavailable
from callboard.runtime.clock import SystemClock
from callboard.runtime.dead_letter import DeadLetter
from callboard.runtime.dead_queue import DeadQueue
from callboard.runtime.testing import running
from faults.stepping import Moment, SteppingApp, Steps
from path.place import Place

PATIENCE_SECONDS = 60.0


def check(value: int) -> int:
    return {1: value}[value]


async def submit(app: Callboard, body: bytes) -> None:
    names = app.connections.names
    message = Message(exchange=names.submit, routing_key="emails", body=body)
    assert list(await app.connections.broker.publish([message], timeout=10)) == [Receipt.CONFIRMED]


async def ready(app: Callboard, queue: str) -> int:
    depth = await app.connections.broker.depth(queue)
    return 0 if depth is None else depth.ready


async def until(count: int, app: Callboard, queue: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await ready(app, queue) < count:
            await asyncio.sleep(0.02)


async def letters(app: Callboard, count: int) -> list[DeadLetter]:
    await until(count, app, app.connections.names.dead)
    found: list[DeadLetter] = []

    def see(letter: DeadLetter, _: Delivery) -> bool:
        found.append(letter)
        return True

    await DeadQueue(app.connections.broker, app.connections.names, SystemClock(), lifetime=None).look(see)
    return found


def stepping(place: Place, steps: Steps) -> SteppingApp:
    app = SteppingApp(broker=place.broker, store=place.store, namespace=place.namespace)
    app.steps = steps

    @app.task(name="add", queue="emails")
    async def add(a: int) -> int:
        return a + 1

    return app


async def test_an_intake_that_failed_leaves_no_submission_in_nobodys_hands(place: Place) -> None:
    failures: list[Moment] = []
    moment = Moment("Jobs.enqueue", "before")

    def fail() -> None:
        failures.append(moment)
        raise RuntimeError("a fault of ours")

    async with stepping(place, Steps(moment, act=fail)) as app:
        async with running(app, actors=["worker", "intake"]):
            await submit(app, b'{"task":"add","args":[1],"id":"a"}')
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await app.queue("emails").get_job("a") is None:
                    await asyncio.sleep(0.02)
            assert await app.queue("emails").handle("a").result(PATIENCE_SECONDS) == 2
            assert await ready(app, app.connections.names.intake) == 0
        await app.connections.producer.drain()
        await app.connections.dispatcher.flush()
        await place.audit(app)
    assert failures == [moment]
    assert any("a fault of ours" in error for error in place.errors)
    place.errors.clear()


async def test_an_intake_stops_while_the_store_is_away_and_gives_back_what_it_holds(place: Place) -> None:
    def away() -> None:
        raise StoreUnavailable("the store", "it is away")

    async with stepping(place, Steps(Moment("Jobs.enqueue", "before", 0), act=away)) as app:
        names = app.connections.names
        async with asyncio.timeout(PATIENCE_SECONDS), running(app, actors=["intake"], grace_seconds=0.2):
            await submit(app, b'{"task":"add","args":[1],"id":"a"}')
            while (depth := await app.connections.broker.depth(names.intake)) is None or not depth.consumers:
                await asyncio.sleep(0.02)
            while await ready(app, names.intake):
                await asyncio.sleep(0.02)
        await until(1, app, names.intake)


async def test_what_a_check_of_the_apps_raises_refuses_the_job_and_stops_nothing(place: Place) -> None:
    async with place.open() as app:

        @app.task(name="picky", queue="emails")
        async def picky(a: Annotated[int, AfterValidator(check)], **more: Any) -> int:
            return a

        async with running(app, actors=["worker", "intake"]):
            await submit(app, b'[{"task":"picky","args":[2],"id":"a"},{"task":"picky","args":[1],"id":"b"}]')
            (letter,) = await letters(app, 1)
            assert await app.queue("emails").handle("b").result(PATIENCE_SECONDS) == 1
    assert (letter.reason, letter.path) == ("invalid-arguments", "/0")
    assert letter.detail == "the task's own check of its arguments raised KeyError"


@pytest.mark.parametrize("others", [1500])
async def test_of_an_array_of_thousands_each_is_judged(place: Place, others: int) -> None:
    async with place.open() as app:

        @app.task(name="add", queue="emails")
        async def add(a: int) -> int:
            return a + 1

        body = b'[{"task":"add","args":[1],"id":"a"}' + b",7" * others + b',{"task":"add","args":[2],"id":"b"}]'
        async with running(app, actors=["worker", "intake"]):
            await submit(app, body)
            await until(1, app, app.connections.names.dead)  # of so many refusals, those of one kind share a letter
            assert [await app.queue("emails").handle(one).result(PATIENCE_SECONDS) for one in ("a", "b")] == [2, 3]
            assert await ready(app, app.connections.names.dead) == 1
