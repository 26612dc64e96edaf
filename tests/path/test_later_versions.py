"""What a newer version of Callboard sent, met by this one: it waits for somebody who can read it. And what is broken in
the same places: it is put aside."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from callboard import Callboard, JobFailed
from callboard.brokers.message import Delivery, Message, Receipt
from callboard.metadata.job import NewJob
from callboard.runtime.clock import SystemClock
from callboard.runtime.dead_letter import DeadLetter
from callboard.runtime.dead_queue import DeadQueue
from callboard.runtime.testing import running
from callboard.runtime.wire import Body, Command, encode_body, encode_command
from path.place import Place

PATIENCE_SECONDS = 60.0


async def publish(app: Callboard, exchange: str, routing_key: str, body: bytes) -> None:
    message = Message(exchange=exchange, routing_key=routing_key, body=body, mandatory=False)
    assert list(await app.connections.broker.publish([message], timeout=10)) == [Receipt.CONFIRMED]


async def enqueue_later(app: Callboard, job_id: str) -> None:
    """A job whose payload only version 2 can read."""
    now = app.clock.now()
    payload = encode_body(Body(id=job_id, queue="default", task="known", created_at=now, v=2))
    job = NewJob(id=job_id, queue="default", task="known", payload=payload, priority=5, created_at=now)
    await app.connections.producer.enqueue([job])


async def letters(app: Callboard, count: int) -> list[DeadLetter]:
    broker, names = app.connections.broker, app.connections.names
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (depth := await broker.depth(names.dead)) is None or depth.ready < count:
            await asyncio.sleep(0.05)
    found: list[DeadLetter] = []

    def see(letter: DeadLetter, _: Delivery) -> bool:
        found.append(letter)
        return True

    await DeadQueue(broker, names, SystemClock(), lifetime=None).look(see)
    return found


def known(app: Callboard) -> Any:
    @app.task(name="known")
    async def known() -> str:
        return "ran"

    return known


async def test_a_job_of_a_later_version_is_parked_then_fails_and_keeps_no_other_waiting(place: Place) -> None:
    async with place.open(unknown_task_grace=1.5) as app:
        task = known(app)
        queue = app.queue("default")
        await enqueue_later(app, "from-2")
        async with running(app, concurrency=1):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (parked := await queue.get_job("from-2")) is None or parked.parked_at is None:
                    await asyncio.sleep(0.02)
            assert await (await task.enqueue()).result(PATIENCE_SECONDS) == "ran"
            try:
                await queue.handle("from-2").result(PATIENCE_SECONDS)
            except JobFailed as failed:
                told = (failed.error_type, str(failed))
        why = "no worker of queue 'default' reads its wire version 2, this one only 1"
        assert (parked.history[-1].outcome, parked.history[-1].reason) == ("parked", why)
        assert told[0] == "callboard.LaterVersion"
        assert why in told[1]
        ended = await queue.get_job("from-2")
        assert ended is not None
        assert (ended.state, ended.failures) == ("failed", 1)


async def test_a_message_that_cannot_be_parked_goes_round_without_hurry_until_the_grace_is_over(place: Place) -> None:
    async with place.open(unknown_task_grace=1.5) as app:
        task = known(app)
        names = app.connections.names
        await app.connections.broker.declare(names.jobs_topology("default"))
        packed = b'{"v":2,"jobs":"packed"}'
        stranger = msgspec.json.encode(
            {
                "v": 1,
                "epoch": app.connections.store.epoch,
                "at": app.clock.now(),
                "jobs": [{"dispatch": 1, "id": "x", "queue": "default", "task": "known", "created_at": 1, "v": 2}] * 3,
            }
        )
        for body in (packed, stranger):
            await publish(app, names.jobs, "default", body)
        async with running(app):
            assert await (await task.enqueue()).result(PATIENCE_SECONDS) == "ran"
            found = await letters(app, 2)
            assert await (await task.enqueue()).result(PATIENCE_SECONDS) == "ran"
        assert {letter.body for letter in found} == {packed, stranger}
        assert {letter.reason for letter in found} == {"later-version"}
        assert all("nobody has come in 1.5 s who can read it" in letter.detail for letter in found)


async def test_what_is_no_bundle_is_put_aside_and_holds_up_nothing(place: Place) -> None:
    async with place.open() as app:
        task = known(app)
        names = app.connections.names
        await app.connections.broker.declare(names.jobs_topology("default"))
        bad = [b'{"v":1,"epoch":"e","at":1,"jobs":[]}', b'{"v":1}', b"nope"] * 10  # more than a worker holds at first
        for body in bad:
            await publish(app, names.jobs, "default", body)
        async with running(app):
            assert await (await task.enqueue()).result(PATIENCE_SECONDS) == "ran"
            found = await letters(app, len(bad))
        assert sorted(letter.body for letter in found) == sorted(bad)
        assert {letter.reason for letter in found} == {"malformed"}


async def test_a_command_is_put_aside_where_it_is_broken_and_passed_over_where_it_is_of_a_later_version(
    place: Place,
) -> None:
    async with place.open() as app:
        task = known(app)
        names = app.connections.names
        async with running(app, actors=["worker"]):
            assert await (await task.enqueue()).result(PATIENCE_SECONDS) == "ran"
            await publish(app, names.control, "all", encode_command(Command(command="pause", v=2, queue="default")))
            await publish(app, names.control, "worker", b'{"command":7}')
            (letter,) = await letters(app, 1)
            assert (letter.reason, letter.exchange, letter.routing_key) == ("malformed", names.control, "worker")
            assert letter.body == b'{"command":7}'
            for _ in range(30):  # of a flood the first are kept
                await publish(app, names.control, "worker", b"nope")
            assert await (await task.enqueue()).result(PATIENCE_SECONDS) == "ran"
        assert len(await letters(app, 1)) <= 10


async def test_events_that_nobody_can_read_wake_nobody_and_stop_nobody(place: Place) -> None:
    async with place.open() as app:
        task = known(app)
        names = app.connections.names
        job = await task.enqueue()
        waiting = asyncio.create_task(job.result(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        async with running(app, actors=["worker"]):
            for body in (b"nope", b'{"v":2,"events":"packed"}', b'{"v":2,"events":[{"event":"completed","color":1}]}'):
                await publish(app, names.events, "default.completed", body)
            assert await waiting == "ran"
            assert await (await task.enqueue()).result(PATIENCE_SECONDS) == "ran"
