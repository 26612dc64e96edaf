"""Jobs that an idle worker is handed as they are recorded, without a ticket."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from msgspec import Raw

from callboard import Callboard, Context
from callboard.metadata.contract import Jobs, Workers
from callboard.metadata.job import NewJob, State
from callboard.metadata.standing import Handed, StandingClaims
from callboard.runtime.clock import SystemClock
from callboard.runtime.testing import running, settled
from callboard.runtime.wire import Body, encode, encode_body
from path.place import Place

WORKER = ("worker",)
QUEUE = "default"
PATIENCE = 20


@pytest.fixture(autouse=True)
def _offered(app: Callboard) -> None:
    store = app.connections.store
    if StandingClaims not in store.capabilities:
        pytest.skip(f"the store {store.scheme} does not offer StandingClaims")


async def record(app: Callboard, id: str, *, task: str = "t") -> State:
    """A job that nobody sends a ticket of; its state."""
    now = SystemClock().now()
    body = Body(id=id, queue=QUEUE, task=task, created_at=now, args=Raw(encode([id])))
    new = NewJob(id=id, queue=QUEUE, task=task, payload=encode_body(body), created_at=now)
    (made,) = await app.connections.store.get(Jobs).enqueue([new], now=now, grace=60_000)
    return made.state


async def hand(app: Callboard, name: str) -> str:
    """Record jobs until one is handed over, for a worker that is about to stand; its id."""
    jobs = app.connections.store.get(Jobs)
    async with asyncio.timeout(PATIENCE):
        for number in count():
            id = f"{name}-{number}"
            if await record(app, id) is State.ACTIVE:
                return id
            await jobs.remove(QUEUE, [id], now=SystemClock().now())
            await asyncio.sleep(0.02)
    raise AssertionError


async def test_an_idle_worker_runs_a_job_that_nobody_sent_a_ticket_of(app: Callboard) -> None:
    @app.task(name="t")
    async def t(ctx: Context, id: str) -> tuple[str, int]:
        return id, ctx.attempt

    async with running(app, actors=WORKER):
        id = await hand(app, "job")
        await settled(app, QUEUE, timeout=PATIENCE)
    info = await app.queue(QUEUE).get_job(id)
    assert info is not None
    assert (info.state, info.result, info.attempts, info.dispatch) == ("completed", [id, 1], 1, 1)
    assert [run.outcome for run in info.history] == ["completed"]


async def test_one_lone_job_after_the_other_runs_once(app: Callboard) -> None:
    runs: list[int] = []

    @app.task(name="t")
    async def t(i: int) -> int:
        runs.append(i)
        return i

    async with running(app, actors=WORKER):
        jobs = [await t.enqueue(i) for i in range(30)]
        assert [await job.result(PATIENCE) for job in jobs] == list(range(30))
    assert sorted(runs) == list(range(30))
    assert {job.attempts for job in await app.queue(QUEUE).get_completed()} == {1}


async def test_a_worker_whose_slots_are_taken_is_handed_nothing_until_one_is_free(app: Callboard) -> None:
    may_end = asyncio.Event()

    @app.task(name="t")
    async def t(id: str) -> str:
        await may_end.wait()
        return id

    async with running(app, actors=WORKER, concurrency=1):
        await hand(app, "first")
        assert await record(app, "waits") is State.WAITING
        await app.connections.store.get(Jobs).remove(QUEUE, ["waits"], now=SystemClock().now())
        may_end.set()
        await hand(app, "second")
        await settled(app, QUEUE, timeout=PATIENCE)


async def test_a_paused_queue_hands_over_nothing(app: Callboard) -> None:
    @app.task(name="t")
    async def t(id: str) -> None: ...

    async with running(app, actors=WORKER):
        await hand(app, "before")
        await app.queue(QUEUE).pause()
        assert await record(app, "waits") is State.WAITING
        await app.connections.store.get(Jobs).remove(QUEUE, ["waits"], now=SystemClock().now())
        await app.queue(QUEUE).resume()
        await hand(app, "after")
        await settled(app, QUEUE, timeout=PATIENCE)


async def test_a_worker_that_stops_loses_none_of_what_it_was_handed(app: Callboard) -> None:
    runs: list[int] = []

    @app.task(name="note")
    async def note(i: int) -> None:
        runs.append(i)

    @app.task(name="t")
    async def t(id: str) -> None: ...

    for start in (0, 100, 200):
        async with running(app, actors=WORKER) as worker:
            await hand(app, f"{start}")
            for i in range(start, start + 30):
                await note.enqueue(i)
                if i == start + 10:
                    worker.stop()
    async with running(app):
        await settled(app, QUEUE, timeout=PATIENCE)
    assert sorted(runs) == [i for start in (0, 100, 200) for i in range(start, start + 30)]


async def test_what_was_handed_to_a_worker_that_is_gone_is_recovered(place: Place) -> None:
    async with place.open(lease_seconds=1) as app:
        store, lost = app.connections.store, asyncio.Event()

        @app.task(name="t")
        async def t(id: str) -> str:
            return id

        def lose(_: Handed) -> None:
            lost.set()

        await store.get(Workers).heartbeat("gone", [QUEUE], info=b"", now=SystemClock().now())
        claims = store.get(StandingClaims)
        hearing = await claims.hear("gone", [QUEUE], told=lose, deaf=lambda: None)
        await claims.stand(QUEUE, "gone", jobs=1)
        assert await record(app, "job") is State.ACTIVE
        await hearing.sync()
        await hearing.close()
        assert lost.is_set()
        async with running(app):
            await settled(app, QUEUE, timeout=PATIENCE)
        info = await app.queue(QUEUE).get_job("job")
        assert info is not None
        assert (info.state, info.result, info.attempts, info.stalled) == ("completed", "job", 2, 1)
