"""The table of started dispatches under several claims at a time, and runs that wait for a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from callboard import Callboard
from callboard.metadata.contract import Claimed, Ending, Finish, Finished, Outcome, Ready, Verdict
from callboard.metadata.job import State
from callboard.runtime.clock import SystemClock
from callboard.runtime.pace import ALONE
from callboard.runtime.run import Interruption, Run
from callboard.runtime.runs import Runs
from callboard.runtime.settings import Settings
from callboard.runtime.wire import Event, Ticket, encode


class Scene:
    """Runs on a stage whose store records every end at once. `slots` that are free, `ends` by job, `sent` tickets."""

    def __init__(self, *, concurrency: int) -> None:
        self.app = Callboard(broker="memory://", store="memory://")
        self.released = 0
        self.ends: dict[str, Ending] = {}
        self.sent: list[tuple[str, int]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        stage: Any = SimpleNamespace(
            app=self.app,
            options=SimpleNamespace(concurrency=concurrency, executor_processes=1),
            settings=Settings(broker="memory://", store="memory://"),
            clock=SystemClock(),
            metrics=None,
            random=Random(1),
            capability=lambda _: self,
            patiently=lambda call: call(),
            dispatcher=self,
            log=None,
        )
        self.runs = Runs(
            stage,
            pace=ALONE,
            spawn=self.spawn,
            lease_is_certain=lambda: True,
            released=self.release,
            changed=lambda: None,
        )

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def release(self) -> None:
        self.released += 1

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> list[Finished]:
        self.ends |= {outcome.id: outcome.ending for outcome in outcomes}
        return [Finished(outcome.id, Finish.DONE, State.COMPLETED, outcome.dispatch) for outcome in outcomes]

    def emit(self, event: Event) -> None: ...

    def send_copy_soon(self, ready: Ready, *, sent_at: int) -> None:
        self.sent.append((ready.id, ready.dispatch))

    def start(self, *ids: str, queue: str = "q", claimed_at: int | None = None) -> None:
        now = SystemClock().now() if claimed_at is None else claimed_at
        for id in ids:
            ticket = Ticket(id=id, queue=queue, task="t", created_at=0, dispatch=1, args=encode([id]))  # type: ignore[arg-type]
            claimed = Claimed(id, Verdict.CLAIMED, fence=1, attempt=1)
            run = Run(queue=queue, ticket=ticket, claimed=claimed, boot="boot", started_at=now)
            run.sent_at = now
            self.runs.start(run)
        self.runs.begin()


def test_what_ended_is_remembered_while_a_claim_that_was_sent_before_is_unanswered() -> None:
    async def check() -> None:
        scene = Scene(concurrency=1)

        @scene.app.task(name="t")
        async def t(id: str) -> None: ...

        with scene.runs.claiming():  # its answer comes late, and tells of a copy
            with scene.runs.claiming():
                assert scene.runs.is_new("q", "a", 1)
            scene.start("a")
            await scene.runs.idle.wait()
            with scene.runs.claiming():
                assert not scene.runs.is_new("q", "a", 1)
        with scene.runs.claiming():  # sent after the end: the store itself says `final`
            assert scene.runs.is_new("q", "a", 1)
        await scene.runs.close()

    asyncio.run(check())


def test_queues_take_turns_and_a_tick_starts_a_few_alone() -> None:
    async def check() -> None:
        scene, begun, going = Scene(concurrency=1000), list[str](), asyncio.Event()

        @scene.app.task(name="t")
        async def t(id: str) -> None:
            begun.append(id)
            await going.wait()

        scene.start(*(f"busy-{n}" for n in range(3 * ALONE.starts)), queue="busy")
        scene.start("quiet", queue="quiet")
        await asyncio.sleep(0)
        assert len(begun) == ALONE.starts
        while len(begun) < 3 * ALONE.starts + 1:
            await asyncio.sleep(0)
        assert begun[ALONE.starts : ALONE.starts + 2] == [f"busy-{ALONE.starts}", "quiet"]
        going.set()
        await scene.runs.idle.wait()
        await scene.runs.close()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("reason", "ending", "sent"),
    [
        (Interruption.CANCELLED, {"second": Ending.CANCELLED}, []),
        (Interruption.STOPPING, {"second": Ending.RELEASE}, []),
        (Interruption.LOST, {}, [("second", 1)]),  # the store may know nothing of it any more
    ],
)
def test_what_waits_for_a_slot_is_interrupted_without_having_run(
    reason: Interruption, ending: dict[str, Ending], sent: list[tuple[str, int]]
) -> None:
    async def check() -> None:
        scene, begun, going = Scene(concurrency=1), list[str](), asyncio.Event()

        @scene.app.task(name="t")
        async def t(id: str) -> None:
            begun.append(id)
            await going.wait()

        scene.start("first", "second")
        while not begun:
            await asyncio.sleep(0)
        if reason is Interruption.CANCELLED:
            scene.runs.cancel(("q", "second"))
        else:
            scene.runs.interrupt(reason)
        while len(scene.runs) > 1 or (reason is not Interruption.CANCELLED and len(scene.runs)):
            await asyncio.sleep(0)
        going.set()
        await scene.runs.idle.wait()
        assert begun == ["first"]
        assert {id: how for id, how in scene.ends.items() if id == "second"} == ending
        assert scene.sent == sent
        assert scene.released == 2
        await scene.runs.close()

    asyncio.run(check())


def test_what_has_waited_too_long_for_a_slot_is_handed_back() -> None:
    async def check() -> None:
        scene, begun, going = Scene(concurrency=1), list[str](), asyncio.Event()

        @scene.app.task(name="t")
        async def t(id: str) -> None:
            begun.append(id)
            await going.wait()

        scene.start("runs", "old", claimed_at=1000)
        scene.start("young", claimed_at=2000)
        while not begun:
            await asyncio.sleep(0)
        scene.runs.hand_back(claimed_before=1500, soon=2)  # both begin in a moment
        await asyncio.sleep(0)
        assert not scene.ends
        scene.runs.hand_back(claimed_before=1500, soon=1)
        going.set()
        await scene.runs.idle.wait()
        assert begun == ["runs", "young"]
        assert scene.ends == {"runs": Ending.COMPLETED, "old": Ending.RELEASE, "young": Ending.COMPLETED}
        await scene.runs.close()

    asyncio.run(check())
