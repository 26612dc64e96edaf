"""Jobs that died with their worker more than once: the last chance is taken alone."""

from __future__ import annotations

import asyncio

import pytest

from callboard import Callboard
from callboard.metadata.contract import Inspection, Jobs, Ticket, Verdict, Workers
from callboard.metadata.job import Keep
from callboard.runtime.testing import running, settled


async def lose(app: Callboard, *ids: str, times: int) -> None:
    """Let workers that nobody has ever seen claim these jobs, and be declared dead, so many times."""
    store, now = app.connections.store, app.clock.now()
    jobs, workers = store.get(Jobs), store.get(Workers)
    for number in range(times):
        boot = f"lost-{number}"
        await workers.heartbeat(boot, ["default"], info=b"{}", now=now)
        tickets = [Ticket(id, number + 1) for id in ids]
        claimed = await jobs.claim("default", boot, tickets, now=now, keep_expired=Keep())
        assert {one.verdict for one in claimed} == {Verdict.CLAIMED}
        (row,) = await workers.workers(["default"])
        assert await workers.declare_dead("default", boot, beat=row.beat, now=now)
        await workers.take_stalled(
            "default", boot, now=now, grace=0, max_stalled=times, error=b"{}", history=b"null", keep=Keep(), limit=100
        )


async def test_a_job_whose_next_loss_would_end_it_runs_with_nothing_else_in_its_worker(app: Callboard) -> None:
    running_now: set[str] = set()
    company: dict[str, set[str]] = {}

    @app.task(name="t")
    async def t(name: str) -> None:
        running_now.add(name)
        company[name] = set(running_now)
        await asyncio.sleep(0.05)
        company[name] |= running_now
        await asyncio.sleep(0.05)
        running_now.discard(name)

    suspects = [f"suspect-{number}" for number in range(3)]
    for name in suspects:
        await t.options(job_id=name).enqueue(name)
    await app.connections.dispatcher.flush()
    await lose(app, *suspects, times=2)
    others = [f"other-{number}" for number in range(12)]
    async with running(app, concurrency=4):
        for name in others:
            await t.options(job_id=name).enqueue(name)
        await settled(app, "default", timeout=60)
    assert set(company) == {*suspects, *others}
    assert [company[name] for name in suspects] == [{name} for name in suspects]
    assert max(len(company[name]) for name in others) > 1
    records = await app.connections.store.get(Inspection).get("default", suspects)
    assert [(job.state, job.stalled, job.attempts) for job in records if job] == [("completed", 2, 3)] * 3


async def test_a_job_that_was_lost_once_runs_beside_others(app: Callboard) -> None:
    both = asyncio.Barrier(2)

    @app.task(name="t")
    async def t() -> None:
        await both.wait()

    await t.options(job_id="lost").enqueue()
    await app.connections.dispatcher.flush()
    await lose(app, "lost", times=1)
    async with running(app, concurrency=4):
        await t.enqueue()
        await settled(app, "default", timeout=60)


async def test_a_worker_that_is_stopped_while_a_suspect_waits_hands_it_back(
    app: Callboard, caplog: pytest.LogCaptureFixture
) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        began.set()
        await may_end.wait()

    @app.task(name="t")
    async def t() -> None: ...

    suspect = await t.options(job_id="suspect").enqueue()
    await app.connections.dispatcher.flush()
    await lose(app, "suspect", times=2)
    async with running(app, actors=("worker",), concurrency=4, grace_seconds=30) as worker:
        await slow.enqueue()
        await began.wait()
        async with running(app, actors=("stalled-recovery",)):  # it sends the suspect's ticket
            async with asyncio.timeout(60):
                while "it runs alone" not in caplog.text:
                    await asyncio.sleep(0.02)
        assert await suspect.state() == "waiting"
        worker.stop()
        may_end.set()
    assert await suspect.state() == "waiting"
    async with running(app, concurrency=4):
        await settled(app, "default", timeout=60)
    assert await suspect.state() == "completed"
