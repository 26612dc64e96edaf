"""What becomes of jobs whose ends, or records, a store has forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from callboard import Callboard
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
    WorkerRow,
    Workers,
)
from callboard.metadata.errors import MetadataError, StoreError, StoreUnavailable
from callboard.metadata.job import Job, Keep, NewJob, State
from callboard.runtime import wire
from callboard.runtime.clock import SystemClock
from callboard.runtime.finisher import Finisher
from callboard.runtime.forgotten import PAGE, REASON, Forgotten
from callboard.runtime.job_view import view
from callboard.runtime.pace import ALONE
from callboard.runtime.registry import make_store
from callboard.runtime.run import Run
from callboard.runtime.settings import Settings
from callboard.runtime.wire import Body, encode_body

QUEUE, BOOT = "q", "boot"
BODY = Body(id="job", queue=QUEUE, task="task", created_at=1)


class SteppedClock(SystemClock):
    """Stands still, but for who moves it, or sleeps."""

    def __init__(self) -> None:
        self.ms = 1_000_000
        self.slept = 0

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.ms += round(seconds * 1000)
        await asyncio.sleep(0)

    async def sleep_unless(self, seconds: float, hint: asyncio.Event) -> None:
        """A stage's `sleep`."""
        if not hint.is_set():
            await self.sleep(seconds)

    def now(self) -> int:
        return self.ms


class Scene:
    """A store in which a job is active under BOOT, and the table of runs of that worker. `here`: ids that are in it."""

    def __init__(self) -> None:
        self.store = make_store("memory://", namespace="test")
        self.here: set[str] = set()
        self.unanswered = False  # a claim that was sent before anybody looked
        self.sent: list[Ready] = []
        self.told: list[wire.Event] = []
        self.clock = SteppedClock()
        self.next_claim = 2
        self.refused: set[str] = set()  # ids of jobs whose ends the store answers with a fault
        self.fault: MetadataError | None = None  # of each look at the workers' rows
        stage: Any = SimpleNamespace(
            app=Callboard(broker="memory://", store="memory://"),
            clock=self.clock,
            sleep=self.clock.sleep_unless,
            random=Random(1),
            settings=Settings(broker="memory://", store="memory://"),
            capability=self._capability,
            dispatcher=SimpleNamespace(send_soon=self.sent.extend, emit=self.told.append),
            log=logging.getLogger("test"),
        )
        runs: Any = self
        self.forgotten = Forgotten(stage, queues=[QUEUE], boot=lambda: BOOT, runs=runs)

    def _capability(self, capability: type) -> Any:
        found: Any = self.store.get(capability)
        if capability is Jobs:
            return SimpleNamespace(finish=partial(self._finish, found))
        if capability is Workers:
            return SimpleNamespace(workers=partial(self._workers, found))
        return found

    async def _finish(self, jobs: Jobs, queue: str, outcomes: Sequence[Outcome], **given: Any) -> Sequence[Finished]:
        if self.refused & {outcome.id for outcome in outcomes}:
            raise StoreError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return await jobs.finish(queue, outcomes, **given)

    async def _workers(self, workers: Workers, queues: Sequence[str]) -> Sequence[WorkerRow]:
        if self.fault is not None:
            raise self.fault
        return await workers.workers(queues)

    async def claim(self, *ids: str, boot: str = BOOT) -> None:
        jobs, now = self.store.get(Jobs), self.clock.now()
        new = [NewJob(id=id, queue=QUEUE, task="task", payload=encode_body(BODY), created_at=1) for id in ids]
        await jobs.enqueue(new, now=now, grace=0)
        await self.store.get(Workers).heartbeat(boot, [QUEUE], info=b"", now=now)
        tickets = [Ticket(id, 1) for id in ids]
        claims = await jobs.claim(QUEUE, boot, tickets, now=now, keep_expired=Keep())
        assert {claimed.verdict for claimed in claims} == {Verdict.CLAIMED}

    async def job(self) -> Job:
        (job,) = await self.store.get(Inspection).get(QUEUE, ["job"])
        assert job is not None
        return job

    # --- the table of runs ---

    def has(self, key: tuple[str, str]) -> bool:
        return key[1] in self.here

    def of(self, queue: str, boot: str) -> int:
        return len(self.here)

    def answered(self, before: int) -> bool:
        return not self.unanswered


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.store.open()
    await scene.claim("job")
    return scene


async def look(scene: Scene, times: int) -> tuple[State, int, Sequence[str]]:
    for _ in range(times):
        scene.clock.ms += 1000
        await scene.forgotten.look()
    job = await scene.job()
    return job.state, job.dispatch, [ready.id for ready in scene.sent]


async def test_a_job_that_does_not_run_here_though_the_store_says_so_is_given_back_and_sent(scene: Scene) -> None:
    assert await look(scene, 2) == (State.ACTIVE, 1, [])
    assert await look(scene, 1) == (State.WAITING, 2, ["job"])
    (run,) = view(await scene.job()).history
    assert (run.outcome, run.reason) == ("released", REASON)
    assert await look(scene, 3) == (State.WAITING, 2, ["job"])
    assert not scene.told


async def test_a_job_that_somebody_has_cancelled_is_told_to_be(scene: Scene) -> None:
    await scene.store.get(Jobs).cancel(QUEUE, ["job"], now=scene.clock.now(), keep=Keep())
    assert await look(scene, 3) == (State.CANCELLED, 1, [])
    assert [(event.event, event.job) for event in scene.told] == [("cancelled", "job")]


async def test_a_job_that_runs_here_is_not_given_back(scene: Scene) -> None:
    scene.here.add("job")
    assert await look(scene, 4) == (State.ACTIVE, 1, [])


async def test_a_job_that_is_found_here_in_between_is_not_given_back(scene: Scene) -> None:
    await look(scene, 2)
    scene.here.add("job")
    await look(scene, 1)
    scene.here.clear()
    assert await look(scene, 2) == (State.ACTIVE, 1, [])


async def test_nothing_is_given_back_while_a_claim_is_unanswered_that_may_have_taken_it(scene: Scene) -> None:
    scene.unanswered = True
    assert await look(scene, 4) == (State.ACTIVE, 1, [])
    scene.unanswered = False
    assert await look(scene, 1) == (State.ACTIVE, 1, [])
    assert await look(scene, 1) == (State.WAITING, 2, ["job"])


async def test_what_somebody_handed_over_whose_clock_is_ahead_is_given_back_at_once(scene: Scene) -> None:
    scene.here.add("job")
    scene.clock.ms += 3_600_000
    await scene.claim("ahead")
    scene.clock.ms -= 3_600_000
    assert (await look(scene, 3))[2] == ["ahead"]


async def test_it_is_found_among_the_jobs_of_many_others(scene: Scene) -> None:
    scene.clock.ms -= 5000
    await scene.claim(*(f"other-{number}" for number in range(2 * PAGE)), boot="another")
    scene.clock.ms += 5000
    assert await look(scene, 3) == (State.WAITING, 2, ["job"])


async def test_what_was_claimed_since_the_look_before_is_left_for_the_next_one(scene: Scene) -> None:
    scene.here.add("job")
    await scene.claim("older")
    await look(scene, 2)
    await scene.claim("younger")
    await look(scene, 1)
    sent = [ready.id for ready in scene.sent]
    assert sent == ["older"]
    await look(scene, 2)
    assert [ready.id for ready in scene.sent] == ["older", "younger"]


async def test_a_job_that_the_store_does_not_take_back_is_told_and_holds_up_no_other(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.refused = {"another", "job"}
    await scene.claim("another", "last")
    assert await look(scene, 3) == (State.ACTIVE, 1, ["last"])
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "2 jobs" in told
    assert "WRONGTYPE" in told
    scene.refused.clear()
    state, dispatch, sent = await look(scene, 3)
    assert (state, dispatch, sorted(sent)) == (State.WAITING, 2, ["another", "job", "last"])


@pytest.mark.parametrize("fault", [StoreError("no permission"), StoreUnavailable("memory", "gone")])
async def test_a_look_that_fails_is_made_again_and_a_fault_told_once(
    scene: Scene, fault: MetadataError, caplog: pytest.LogCaptureFixture
) -> None:
    scene.fault = fault
    giving = asyncio.create_task(scene.forgotten.give_back())
    async with asyncio.timeout(60):
        while scene.clock.slept < 3:
            await asyncio.sleep(0)
            assert not giving.done()
        scene.fault = None
        while (await scene.job()).state is State.ACTIVE:
            await asyncio.sleep(0)
    giving.cancel()
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == isinstance(fault, StoreError)
    assert all("no permission" in line for line in told)


async def test_when_asked_to_it_looks_at_once_and_what_nobody_runs_is_given_back_within_seconds(scene: Scene) -> None:
    lease = Settings(broker="memory://", store="memory://").lease_seconds
    began = scene.clock.ms
    scene.forgotten.look_soon()
    giving = asyncio.create_task(scene.forgotten.give_back())
    async with asyncio.timeout(60):
        while (await scene.job()).state is State.ACTIVE:
            await asyncio.sleep(0)
    giving.cancel()
    assert scene.clock.ms - began < min(lease, 5) * 1000


class Refusing:
    """A store that knows nothing of a job whose run ends, and the dispatcher."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> list[Finished]:
        return [Finished(outcome.id, Finish.REFUSED, None, 0) for outcome in outcomes]

    def send_copy_soon(self, ready: Ready, *, sent_at: int) -> None:
        self.sent.append((ready.id, ready.dispatch))

    def emit(self, event: object) -> None: ...


SENT = [("job", 3)]


@pytest.mark.parametrize(
    ("ending", "age_seconds", "sent"),
    [
        (Ending.RETRY, 599, SENT),
        (Ending.RELEASE, 0, SENT),
        (Ending.COMPLETED, 0, []),
        (Ending.FAILED, 0, []),
        (Ending.RETRY, 600, []),  # what had ended so long ago would have no tombstone any more
    ],
)
async def test_the_ticket_of_a_job_that_is_to_run_again_is_sent_again_where_its_store_may_have_forgotten_it(
    ending: Ending, age_seconds: int, sent: list[tuple[str, int]]
) -> None:
    refusing, over, clock = Refusing(), asyncio.Event(), SteppedClock()
    stage: Any = SimpleNamespace(
        clock=clock,
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
    run.sent_at = clock.now() - age_seconds * 1000
    finisher.finish(run, Outcome(id="job", dispatch=3, owner=BOOT, ending=ending))
    await over.wait()
    assert refusing.sent == sent
    assert finisher.late_finishes == 1
