"""Which queue's jobs are claimed next, and how many claims are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from callboard.metadata.contract import Claimed, Verdict
from callboard.metadata.contract import Ticket as ClaimTicket
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import Keep
from callboard.runtime.backlog import Backlog, Parcel
from callboard.runtime.claims import FEW, Claims
from callboard.runtime.pace import SHARED, Pace, pace_of
from callboard.runtime.run import Run
from callboard.runtime.spare import HAND_ON_SECONDS
from callboard.runtime.wire import Bundle, Ticket

CONCURRENCY = 2 * SHARED.batch
SHORT_JOBS = 10_000 * HAND_ON_SECONDS  # a rate that leaves room beyond the slots


class Scene:
    """Claims of queue `quiet`, then `busy`, on a store that answers with the verdicts of `answers` once, and then
    nothing; the next `replies_lost` get lost. `asked`: queue and size of each call; `settled`, `started`, `copies`: how
    many messages, runs, and copies that were refused, there were."""

    def __init__(self, pace: Pace = SHARED) -> None:
        self.boot = self.next_boot = "boot"  # now, and once the store has answered
        self.asked: list[tuple[str, int]] = []
        self.answers: list[Verdict] = []
        self.replies_lost = 0
        self.lost: list[str] = []  # boots
        self.settled = 0
        self.started = 0
        self.copies = 0
        self.waiting: set[str] = set()
        self.backlog = Backlog(["quiet", "busy"], None)
        self.changed = asyncio.Event()
        stage: Any = SimpleNamespace(
            app=SimpleNamespace(retention=lambda queue: (Keeps(), Keeps())),
            options=SimpleNamespace(concurrency=CONCURRENCY),
            settings=SimpleNamespace(max_stalled=3),
            clock=SimpleNamespace(now=lambda: 0),
            stopping=asyncio.Event(),
            capability=lambda _: self,
            offered=lambda _: None,
            patiently=lambda call: call(),
        )
        runs: Any = SimpleNamespace(
            has_room=True,
            lost_before=0,
            waits=self.waiting.__contains__,
            claiming=Nothing,
            is_new=lambda *_: True,
            start=self.start,
            begin=lambda: None,
            in_words=lambda: "",
        )
        nobody: Any = None
        host: Any = self
        self.claims = Claims(
            stage,
            host,
            ["quiet", "busy"],
            self.backlog,
            runs,
            nobody,
            pace=pace,
            changed=self.changed,
            missed=lambda: None,
            spawn=asyncio.get_running_loop().create_task,
        )
        self.claiming = asyncio.ensure_future(self.claims.claim_while_there_is_work())

    def lease_is_certain(self) -> bool:
        return True

    async def claim(self, queue: str, owner: str, tickets: Sequence[ClaimTicket], **more: object) -> list[Claimed]:
        self.asked.append((queue, len(tickets)))
        if self.replies_lost:
            self.replies_lost -= 1
            raise StoreUnavailable("the store", "its reply was lost")
        answers, self.answers = self.answers, []
        if not answers:
            await asyncio.Event().wait()
        self.boot = self.next_boot
        return [Claimed(ticket.id, verdict) for ticket, verdict in zip(tickets, answers, strict=True)]

    def lease_lost(self, boot: str) -> None:
        self.lost.append(boot)

    def copy_refused(self) -> None:
        self.copies += 1

    def start(self, run: Run) -> None:
        self.started += 1

    def ack(self) -> None:
        self.settled += 1

    async def arrives(self, queue: str, jobs: int) -> None:
        tickets = [Ticket(id=str(n), queue=queue, task="t", created_at=0, dispatch=1) for n in range(jobs)]
        nowhere: Any = SimpleNamespace(lost=False, ack=self.ack)
        bundle = Bundle(v=1, epoch="e", at=0, jobs=tickets)
        self.backlog.add(queue, Parcel(nowhere, bundle, parts=jobs, arrived=0.0), tickets)
        self.changed.set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.claiming.cancel()
        await asyncio.wait([self.claiming])
        await asyncio.sleep(0)


class Keeps:
    def keep(self) -> Keep:
        return Keep()


class Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


BUSY = [("busy", SHARED.batch)] * SHARED.calls


async def test_a_queue_with_nothing_under_way_need_not_wait_for_the_claims_of_another() -> None:
    scene = Scene()
    scene.claims.follow(SHORT_JOBS)
    await scene.arrives("busy", 1000)
    assert scene.asked == BUSY
    await scene.arrives("quiet", FEW + 1)
    assert scene.asked == [*BUSY, ("quiet", FEW)]
    await scene.arrives("quiet", 1)  # has something under way now
    assert scene.asked == [*BUSY, ("quiet", FEW)]
    await scene.close()


async def test_a_store_that_waits_for_a_disk_is_not_asked_for_a_few_more_while_a_claim_is_under_way() -> None:
    pace = pace_of(["busy"], durable=True)
    scene = Scene(pace)
    await scene.arrives("busy", 1)
    assert scene.asked == [("busy", 1)]
    await scene.arrives("busy", pace.least - 1)
    assert scene.asked == [("busy", 1)]
    await scene.arrives("busy", 1)
    assert scene.asked == [("busy", 1), ("busy", pace.least)]
    await scene.close()


async def test_nothing_is_claimed_beyond_the_slots_where_jobs_are_long() -> None:
    scene = Scene()
    await scene.arrives("busy", 1000)
    await scene.arrives("quiet", 1)
    assert scene.asked == BUSY
    await scene.close()


async def test_nor_while_one_that_was_claimed_so_waits_for_a_slot() -> None:
    scene = Scene()
    scene.claims.follow(SHORT_JOBS)
    await scene.arrives("busy", 1000)
    scene.waiting.add("quiet")
    await scene.arrives("quiet", 1)
    assert scene.asked == BUSY
    await scene.close()


@pytest.mark.parametrize(
    "verdict", [Verdict.TAKEN, Verdict.STALE, Verdict.FINAL, Verdict.GONE, Verdict.NOT_DUE], ids=str
)
async def test_a_copy_of_a_ticket_is_settled_and_counted(verdict: Verdict) -> None:
    scene = Scene()
    scene.answers = [verdict]
    await scene.arrives("quiet", 1)
    assert (scene.started, scene.settled, scene.copies) == (0, 1, 1)
    await scene.close()


async def test_no_ticket_is_settled_where_a_boot_is_found_dead_in_the_midst_of_a_claim() -> None:
    scene = Scene()
    scene.answers = [Verdict.TAKEN, Verdict.DEAD]
    await scene.arrives("quiet", 2)
    assert scene.lost == ["boot"]
    assert scene.settled == 0
    assert scene.asked == [("quiet", 2)] * 2
    await scene.close()


async def test_nothing_starts_that_was_claimed_by_a_boot_which_was_lost_before_the_answer() -> None:
    scene = Scene()
    scene.next_boot = "another boot"
    scene.answers = [Verdict.CLAIMED]
    await scene.arrives("quiet", 1)
    assert scene.started == 0
    assert scene.settled == 0
    assert scene.asked == [("quiet", 1)] * 2
    await scene.close()


async def test_a_claim_that_was_answered_may_be_followed_by_an_orderly_leave() -> None:
    scene = Scene()
    scene.answers = [Verdict.TAKEN]
    await scene.arrives("quiet", 1)
    assert scene.claims.all_answered
    await scene.close()


async def test_a_claim_that_was_given_up_may_not() -> None:
    scene = Scene()
    await scene.arrives("quiet", 1)
    await scene.close()
    assert not scene.claims.all_answered


async def test_nor_may_one_whose_reply_was_lost_though_its_repeat_is_answered() -> None:
    scene = Scene()
    scene.replies_lost = 1
    with pytest.raises(StoreUnavailable):
        await scene.claims._ask("quiet", "boot", [ClaimTicket("job", 1)], None)
    scene.answers = [Verdict.TAKEN]
    await scene.arrives("quiet", 1)
    assert scene.copies == 1
    assert not scene.claims.all_answered
    await scene.close()
