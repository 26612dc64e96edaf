"""What becomes of jobs whose ends, or records, a store has forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from callboard.metadata.contract import (
    Claimed,
    Ending,
    Finish,
    Finished,
    Inspection,
    Jobs,
    Outcome,
    Ready,
    Ticket,
    Verdict,
    Workers,
)
from callboard.metadata.job import Job, Keep, NewJob, State
from callboard.runtime import wire
from callboard.runtime.clock import SystemClock
from callboard.runtime.finisher import Finisher
from callboard.runtime.forgotten import Forgotten
from callboard.runtime.job_view import view
from callboard.runtime.pace import ALONE
from callboard.runtime.registry import make_store
from callboard.runtime.run import Run
from callboard.runtime.settings import Settings
from callboard.runtime.wire import Body, encode_body

QUEUE, BOOT = "q", "boot"
BODY = Body(id="job", queue=QUEUE, task="task", created_at=1)


class Scene:
    """A store in which a job is active under BOOT, and the table of runs of that worker. `here`: ids that are in it."""

    def __init__(self) -> None:
        self.store = make_store("memory://", namespace="test")
        self.here: set[str] = set()
        self.unanswered = False  # a claim that was sent before anybody looked
        self.sent: list[Ready] = []
        self.next_claim = 2
        self.kept: Any = SimpleNamespace(durable=False, shared=True)
        stage: Any = SimpleNamespace(
            clock=SystemClock(),
            settings=Settings(broker="memory://", store="memory://"),
            capability=self.store.get,
            connections=SimpleNamespace(store=self.kept),
            dispatcher=SimpleNamespace(send_soon=self.sent.extend),
            log=logging.getLogger("test"),
        )
        runs: Any = self
        self.forgotten = Forgotten(stage, queues=[QUEUE], boot=lambda: BOOT, runs=runs)

    async def claim(self) -> None:
        await self.store.open()
        jobs, now = self.store.get(Jobs), SystemClock().now()
        new = NewJob(id="job", queue=QUEUE, task="task", payload=encode_body(BODY), created_at=1)
        await jobs.enqueue([new], now=now, grace=0)
        await self.store.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=now)
        (claimed,) = await jobs.claim(QUEUE, BOOT, [Ticket("job", 1)], now=now, keep_expired=Keep())
        assert claimed.verdict is Verdict.CLAIMED

    async def job(self) -> Job:
        (job,) = await self.store.get(Inspection).get(QUEUE, ["job"])
        assert job is not None
        return job

    # --- the table of runs ---

    def has(self, key: tuple[str, str]) -> bool:
        return key[1] in self.here

    def of(self, queue: str) -> int:
        return len(self.here)

    def answered(self, before: int) -> bool:
        return not self.unanswered


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.claim()
    return scene


async def look(scene: Scene, times: int) -> tuple[State, int, Sequence[str]]:
    for _ in range(times):
        await scene.forgotten.look()
    job = await scene.job()
    return job.state, job.dispatch, [ready.id for ready in scene.sent]


async def test_a_job_that_does_not_run_here_though_the_store_says_so_is_given_back_and_sent(scene: Scene) -> None:
    assert await look(scene, 1) == (State.ACTIVE, 1, [])
    assert await look(scene, 1) == (State.WAITING, 2, ["job"])
    (run,) = view(await scene.job()).history
    assert (run.outcome, run.reason) == ("released", "its store has forgotten how this run ended")
    assert await look(scene, 2) == (State.WAITING, 2, ["job"])


async def test_a_job_that_runs_here_is_not_given_back(scene: Scene) -> None:
    scene.here.add("job")
    assert await look(scene, 3) == (State.ACTIVE, 1, [])


async def test_a_job_that_is_found_here_in_between_is_not_given_back(scene: Scene) -> None:
    await look(scene, 1)
    scene.here.add("job")
    await look(scene, 1)
    scene.here.clear()
    assert await look(scene, 1) == (State.ACTIVE, 1, [])


async def test_nothing_is_given_back_while_a_claim_is_unanswered_that_may_have_taken_it(scene: Scene) -> None:
    scene.unanswered = True
    assert await look(scene, 3) == (State.ACTIVE, 1, [])
    scene.unanswered = False
    assert await look(scene, 1) == (State.ACTIVE, 1, [])
    assert await look(scene, 1) == (State.WAITING, 2, ["job"])


@pytest.mark.parametrize(("durable", "shared"), [(True, True), (False, False)])
async def test_stores_that_forget_nothing_are_not_looked_at(scene: Scene, durable: bool, shared: bool) -> None:
    scene.kept.durable, scene.kept.shared = durable, shared
    await scene.forgotten.give_back()  # at once
    assert (await scene.job()).state is State.ACTIVE


class Refusing:
    """A store that knows nothing of a job whose run ends, and the dispatcher."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> list[Finished]:
        return [Finished(outcome.id, Finish.REFUSED, None, 0) for outcome in outcomes]

    def send_soon(self, ready: Sequence[Ready]) -> None:
        self.sent += [(one.id, one.dispatch) for one in ready]

    def emit(self, event: object) -> None: ...


@pytest.mark.parametrize(
    ("ending", "sent"),
    [(Ending.RETRY, [("job", 3)]), (Ending.RELEASE, [("job", 3)]), (Ending.COMPLETED, []), (Ending.FAILED, [])],
    ids=str,
)
async def test_the_ticket_of_a_forgotten_job_that_is_to_run_again_is_sent_again(
    ending: Ending, sent: list[tuple[str, int]]
) -> None:
    refusing, over = Refusing(), asyncio.Event()
    stage: Any = SimpleNamespace(
        clock=SystemClock(),
        settings=Settings(broker="memory://", store="memory://"),
        capability=lambda _: refusing,
        patiently=lambda call: call(),
        dispatcher=refusing,
        metrics=None,
        log=logging.getLogger("test"),
    )
    tasks: list[asyncio.Future[Any]] = []
    finisher = Finisher(
        stage, pace=ALONE, ended=lambda _: over.set(), spawn=lambda work: tasks.append(asyncio.ensure_future(work))
    )
    ticket = wire.Ticket(id="job", queue=QUEUE, task="task", created_at=1, dispatch=3)
    run = Run(queue=QUEUE, ticket=ticket, claimed=Claimed("job", Verdict.CLAIMED), boot=BOOT, started_at=1)
    finisher.finish(run, Outcome(id="job", dispatch=3, owner=BOOT, ending=ending))
    await over.wait()
    assert refusing.sent == sent
    assert finisher.late_finishes == 1
