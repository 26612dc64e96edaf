"""What becomes of a job that a standing claim has got: a run without a ticket or a claim, once, or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from callboard import Callboard
from callboard.metadata.contract import (
    Claimed,
    Ending,
    Finish,
    Finished,
    Outcome,
    Ready,
    Verdict,
)
from callboard.metadata.contract import Ticket as ClaimTicket
from callboard.metadata.job import State
from callboard.metadata.standing import Handed, Hearing, StandingClaims
from callboard.runtime.backlog import Backlog, Parcel
from callboard.runtime.claims import Claims
from callboard.runtime.clock import SystemClock
from callboard.runtime.pace import ALONE
from callboard.runtime.run import Interruption
from callboard.runtime.runs import Runs
from callboard.runtime.settings import Settings
from callboard.runtime.standing import REMEMBERED
from callboard.runtime.wire import Body, Bundle, Event, Ticket, encode, encode_body

QUEUE, BOOT = "q", "boot"
NOW = SystemClock().now()


class FakeStore:
    """`verdict`: of every claim; `stalled`: how often its job was lost before. `ends`: what was recorded, by job. It is
    also who hears what is handed over."""

    def __init__(self) -> None:
        self.verdict = Verdict.MINE
        self.stalled = 0
        self.claimed: list[str] = []
        self.ends: dict[str, Ending] = {}
        self.told: Callable[[Handed], None] | None = None
        self.may_sync = asyncio.Event()
        self.may_sync.set()
        self.synced = 0

    async def claim(self, queue: str, owner: str, tickets: Sequence[ClaimTicket], **more: object) -> list[Claimed]:
        self.claimed += [ticket.id for ticket in tickets]
        return [Claimed(one.id, self.verdict, fence=1, attempt=1, stalled=self.stalled) for one in tickets]

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> list[Finished]:
        self.ends |= {outcome.id: outcome.ending for outcome in outcomes}
        return [Finished(outcome.id, Finish.DONE, State.COMPLETED, outcome.dispatch) for outcome in outcomes]

    async def hear(
        self, owner: str, queues: Sequence[str], *, told: Callable[[Handed], None], deaf: Callable[[], None]
    ) -> Hearing:
        self.told = told
        return self

    async def stand(self, queue: str, owner: str, *, jobs: int) -> bool:
        return True

    async def sync(self) -> None:
        self.synced += 1
        await self.may_sync.wait()

    async def close(self) -> None: ...


class Scene:
    """A worker that stands for jobs. `ran`: the arguments of its runs, each of which ends once `may_end` is set."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.app = Callboard(broker="memory://", store="memory://")
        self.boot = BOOT
        self.ran: list[str] = []
        self.settled = 0
        self.copies = 0
        self.sent: list[tuple[str, int, int]] = []
        self.missed = 0
        self.certain = True
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.stopping = asyncio.Event()
        self.changed = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.backlog = Backlog([QUEUE], None)
        stage: Any = SimpleNamespace(
            app=self.app,
            options=SimpleNamespace(concurrency=3, executor_processes=1),
            settings=Settings(broker="memory://", store="memory://"),
            clock=SystemClock(),
            stopping=self.stopping,
            metrics=None,
            random=Random(1),
            capability=lambda _: self.store,
            offered={StandingClaims: self.store}.get,
            patiently=lambda call: call(),
            dispatcher=self,
            log=logging.getLogger("test"),
        )
        self.runs = Runs(
            stage,
            pace=ALONE,
            spawn=self.spawn,
            lease_is_certain=self.lease_is_certain,
            released=self.released,
            changed=self.changed.set,
        )
        nobody: Any = None
        host: Any = self
        self.claims = Claims(
            stage,
            host,
            [QUEUE],
            self.backlog,
            self.runs,
            nobody,
            pace=ALONE,
            changed=self.changed,
            missed=self.miss,
            spawn=self.spawn,
        )

        @self.app.task(name="t")
        async def t(id: str) -> None:
            self.ran.append(id)
            await self.may_end.wait()

        self.work = [self.spawn(self.claims.claim_while_there_is_work()), self.spawn(self.claims.standing.serve())]

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def lease_is_certain(self) -> bool:
        return self.certain

    async def beats(self) -> None:
        self.certain = True
        self.claims.told_of_the_lease()
        await self.settle()

    def released(self) -> None:
        self.claims.released()

    def copy_refused(self) -> None:
        self.copies += 1

    def miss(self) -> None:
        self.missed += 1

    def ack(self) -> None:
        self.settled += 1

    def emit(self, event: Event) -> None: ...

    def send_soon(self, ready: Sequence[Ready]) -> None: ...

    def send_copy_soon(self, ready: Ready, *, sent_at: int) -> None:
        self.sent.append((ready.id, ready.dispatch, sent_at))

    def hand(self, id: str, *, payload: bytes | None = None) -> None:
        assert self.store.told is not None
        body = payload or encode_body(Body(**_values(id)))
        self.store.told(Handed(QUEUE, id, 1, body))

    async def arrives(self, id: str, **more: Any) -> None:
        """Its ticket, as the worker receives it."""
        ticket = Ticket(**{**_values(id), "dispatch": 1, **more})
        nowhere: Any = SimpleNamespace(lost=False, ack=self.ack)
        parcel = Parcel(nowhere, Bundle(v=1, epoch="e", at=NOW, jobs=[ticket]), parts=1, arrived=0.0)
        if self.claims.standing.was_handed(QUEUE, ticket):
            parcel.settle()
        else:
            self.backlog.add(QUEUE, parcel, [ticket])
            self.changed.set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def idle(self) -> None:
        async with asyncio.timeout(5):
            await self.runs.idle.wait()

    async def close(self) -> None:
        self.may_end.set()
        with suppress(TimeoutError):
            await self.idle()
        for task in list(self.tasks):
            task.cancel()
        await self.settle()
        await self.runs.close()


def _values(id: str) -> dict[str, Any]:
    return {"id": id, "queue": QUEUE, "task": "t", "created_at": NOW, "args": Raw(encode([id]))}


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.settle()
    yield scene
    await scene.close()


async def test_a_job_that_is_handed_over_runs_without_a_ticket_or_a_claim(scene: Scene) -> None:
    scene.hand("job")
    await scene.settle()
    await scene.idle()
    assert (scene.ran, scene.store.ends, scene.store.claimed) == (["job"], {"job": Ending.COMPLETED}, [])


async def test_what_is_told_again_while_it_runs_runs_once(scene: Scene) -> None:
    scene.may_end.clear()
    scene.hand("job")
    scene.hand("job")
    await scene.settle()
    scene.hand("job")
    await scene.settle()
    assert (scene.ran, len(scene.runs), scene.claims.free) == (["job"], 1, 2)


async def test_what_was_started_by_its_ticket_is_not_started_again_once_it_is_told(scene: Scene) -> None:
    scene.store.may_sync.clear()  # the store's word is still on its way
    await scene.arrives("job")
    await scene.idle()
    assert (scene.ran, scene.store.claimed, scene.settled, scene.store.synced) == (["job"], ["job"], 1, 1)
    scene.store.verdict = Verdict.FINAL
    await scene.arrives("another")  # that it has ended would be forgotten now
    scene.hand("job")
    await scene.settle()
    assert scene.ran == ["job"]


async def test_what_was_handed_to_another_boot_is_left_to_recovery(scene: Scene) -> None:
    scene.boot = "another"
    scene.hand("job")
    await scene.settle()
    assert (scene.ran, len(scene.runs), scene.claims.free) == ([], 0, 3)


async def test_while_the_worker_stops_what_is_handed_over_is_given_back(scene: Scene) -> None:
    scene.stopping.set()
    scene.hand("job")
    await scene.settle()
    await scene.idle()
    assert (scene.ran, scene.store.ends, scene.claims.free) == ([], {"job": Ending.RELEASE}, 3)


async def test_beside_a_job_that_was_lost_before_what_is_handed_over_is_given_back(scene: Scene) -> None:
    scene.may_end.clear()
    scene.store.stalled = 1
    await scene.arrives("lost before")
    scene.hand("job")
    await scene.settle()
    assert (scene.ran, scene.store.ends) == (["lost before"], {"job": Ending.RELEASE})


async def test_what_is_told_while_the_lease_may_be_lost_starts_with_the_next_heartbeat(scene: Scene) -> None:
    scene.certain = False
    scene.hand("job")
    await scene.settle()
    assert scene.ran == []
    await scene.beats()
    await scene.idle()
    assert (scene.ran, scene.store.ends, scene.missed) == (["job"], {"job": Ending.COMPLETED}, 0)


async def test_what_was_told_before_the_process_stood_still_for_its_lease_is_left_to_recovery(scene: Scene) -> None:
    scene.certain = False
    scene.hand("job")
    await scene.settle()
    scene.boot = "another"
    await scene.beats()
    assert (scene.ran, len(scene.runs), scene.claims.free) == ([], 0, 3)


async def test_what_was_started_by_its_ticket_is_not_started_again_though_it_is_told_before_a_heartbeat(
    scene: Scene,
) -> None:
    scene.store.may_sync.clear()
    await scene.arrives("job")
    await scene.idle()
    scene.certain = False
    scene.hand("job")
    scene.store.may_sync.set()
    await scene.settle()
    scene.claims.told_of_the_lease()  # by an answer that came too late
    await scene.settle()
    await scene.beats()
    assert scene.ran == ["job"]


async def test_what_waits_for_a_heartbeat_is_given_back_while_the_worker_stops(scene: Scene) -> None:
    scene.certain = False
    scene.hand("job")
    await scene.settle()
    scene.stopping.set()
    scene.claims.told_of_the_lease()
    await scene.settle()
    await scene.idle()
    assert (scene.ran, scene.store.ends) == ([], {"job": Ending.RELEASE})


async def test_what_waits_for_a_heartbeat_is_not_looked_for_meanwhile(scene: Scene) -> None:
    scene.certain = False
    scene.hand("job")
    await scene.settle()
    assert not scene.runs.answered(scene.runs.next_claim)
    await scene.beats()
    assert scene.runs.answered(scene.runs.next_claim)


@pytest.mark.parametrize(
    "payload",
    [
        b"no json",
        b"{}",
        b'{"id":"job","queue":"another","task":"t","created_at":1}',
        b'{"id":"another","queue":"q","task":"t","created_at":1}',
        b'{"id":' + b"[" * 100_000,
    ],
    ids=["no JSON", "empty", "of another queue", "of another job", "deep"],
)
async def test_what_nobody_can_read_does_not_start_and_is_looked_for(scene: Scene, payload: bytes) -> None:
    scene.hand("job", payload=payload)
    await scene.settle()
    assert (scene.missed, len(scene.runs), scene.claims.free) == (1, 0, 3)


async def test_the_ticket_of_what_was_handed_over_is_settled_once_without_a_claim(scene: Scene) -> None:
    scene.may_end.clear()
    scene.hand("job")
    await scene.arrives("job")
    assert (scene.settled, scene.store.claimed, scene.copies) == (1, [], 0)
    await scene.arrives("job")  # a copy
    assert (scene.settled, scene.store.claimed, scene.copies) == (2, ["job"], 1)
    assert scene.ran == ["job"]


@pytest.mark.parametrize("more", [{"created_at": NOW + 1}, {"dispatch": 2}], ids=["made anew", "sent again"])
async def test_a_ticket_of_another_job_or_dispatch_is_claimed(scene: Scene, more: dict[str, int]) -> None:
    scene.store.verdict = Verdict.STALE
    scene.may_end.clear()
    scene.hand("job")
    await scene.arrives("job", **more)
    assert scene.store.claimed == ["job"]


async def test_so_many_that_were_handed_over_are_remembered_and_no_more(scene: Scene) -> None:
    scene.store.verdict = Verdict.FINAL
    for number in range(REMEMBERED + 1):
        scene.hand(str(number))
        await scene.settle()
        await scene.idle()
    await scene.arrives("0")
    await scene.arrives("1")
    assert scene.store.claimed == ["0"]
    assert len(scene.ran) == REMEMBERED + 1


async def test_more_than_there_are_slots_for_wait_for_one(scene: Scene) -> None:
    scene.may_end.clear()
    for id in "abcd":
        scene.hand(id)
    await scene.settle()
    assert (scene.ran, len(scene.runs), scene.claims.free) == (["a", "b", "c"], 4, -1)
    scene.may_end.set()
    await scene.settle()
    await scene.idle()
    assert scene.ran == ["a", "b", "c", "d"]


async def test_one_that_waits_when_the_lease_is_lost_gets_a_ticket_since_its_store_may_know_nothing_of_it(
    scene: Scene,
) -> None:
    scene.may_end.clear()
    for id in "abcd":
        scene.hand(id)
    await scene.settle()
    scene.runs.interrupt(Interruption.LOST, boot=BOOT)
    await scene.settle()
    assert ("d", 1, NOW) in scene.sent
