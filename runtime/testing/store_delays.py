"""What Delays promises (protocol T9): what is due, and delays that are changed or given up."""

from __future__ import annotations

import asyncio

import pytest

from ...metadata.contract import Delay, Delays, Ending, Ready, Store, Verdict
from ...metadata.job import Keep, Outbox, State
from ..clock import SystemClock
from .store_scene import DAY, GRACE, MANY, QUEUE, Scene, StoreSuite


class DelayConformance(StoreSuite):
    # -- what is due -----------------------------------------------------------------------------------------------

    async def test_a_delayed_job_is_not_due_before_its_time(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 5_000)
        scene.step(4_999)
        assert await scene.due() == []
        assert (await scene.job()).state is State.DELAYED

    async def test_a_due_job_waits_at_the_next_dispatch_with_its_outbox_due(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 5_000)
        scene.step(5_000)
        assert await scene.due() == [("job", 1)]
        job = await scene.job()
        assert (job.state, job.dispatch, job.outbox) == (State.WAITING, 1, Outbox.DUE)
        scene.step(GRACE - 1)
        assert await scene.unpublished() == []
        scene.step(1)
        assert await scene.unpublished() == [("job", 1)]

    async def test_a_due_job_comes_with_all_that_a_ticket_needs(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 1, payload=b"\xff\x00", priority=8)
        scene.step(1)
        (row,) = (await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=10)).ready
        assert (row.queue, row.id, row.dispatch, row.priority, row.payload) == (QUEUE, "job", 1, 8, b"\xff\x00")

    async def test_a_due_job_is_taken_once(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 1)
        scene.step(1)
        await scene.due()
        assert await scene.due() == []

    async def test_due_jobs_come_up_to_the_limit_of_each_queue_earliest_first(self, scene: Scene) -> None:
        for n in range(4):
            await scene.enqueue(*(scene.new(str(n), queue=q, run_at=scene.now + 10 + n) for q in (QUEUE, "reports")))
        scene.step(100)
        taken = await scene.delays.take_due([QUEUE, "reports"], now=scene.now, grace=GRACE, limit=3)
        assert sorted((row.queue, row.id) for row in taken.ready) == [
            (queue, id) for queue in (QUEUE, "reports") for id in ("0", "1", "2")
        ]

    async def test_the_next_due_time_is_the_earliest_left_in_any_queue(self, scene: Scene) -> None:
        await scene.add("later", run_at=scene.now + 9_000)
        await scene.add("sooner", queue="reports", run_at=scene.now + 7_000)
        answer = await scene.delays.take_due([QUEUE, "reports"], now=scene.now, grace=GRACE, limit=10)
        assert (list(answer.ready), answer.next_due) == ([], scene.now + 7_000)

    async def test_the_next_due_time_is_past_where_the_limit_left_due_jobs(self, scene: Scene) -> None:
        await scene.enqueue(scene.new("a", run_at=scene.now + 1), scene.new("b", run_at=scene.now + 2))
        due = scene.now + 2
        scene.step(100)
        assert (await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=1)).next_due == due

    async def test_without_delayed_jobs_there_is_no_next_due_time(self, scene: Scene) -> None:
        await scene.add("job")
        assert (await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=10)).next_due is None

    async def test_the_callers_clock_running_ahead_starts_nothing_early(self, scene: Scene) -> None:
        real = SystemClock().now()
        await scene.add("job", run_at=real + DAY)
        answer = await scene.delays.take_due([QUEUE], now=real + 2 * DAY, grace=GRACE, limit=10)
        assert len(answer.ready) == (0 if scene.store.server_time else 1)

    async def test_the_gap_between_the_clocks_is_told(self, scene: Scene) -> None:
        real = SystemClock().now()
        answer = await scene.delays.take_due([QUEUE], now=real - DAY, grace=GRACE, limit=10)
        expected = DAY if scene.store.server_time else 0
        assert abs(answer.gap - expected) < 60_000

    async def test_two_scanners_never_take_one_job_twice(self, scene: Scene, peer: Store) -> None:
        await scene.enqueue(*(scene.new(str(n), run_at=scene.now + 1) for n in range(40)))
        scene.step(1)
        sides = (scene.delays, peer.get(Delays))
        taken = await asyncio.gather(
            *(side.take_due([QUEUE], now=scene.now, grace=GRACE, limit=7) for _ in range(4) for side in sides)
        )
        assert sorted(row.id for due in taken for row in due.ready) == sorted(str(n) for n in range(40))

    # A scanner has looked before, and a store may have foreseen what is due next.

    async def test_what_was_seen_before_is_not_due_by_the_callers_clock_alone(self, scene: Scene) -> None:
        real = SystemClock().now()
        await scene.add("job", run_at=real + DAY)
        await scene.delays.take_due([QUEUE], now=real, grace=GRACE, limit=10)
        answer = await scene.delays.take_due([QUEUE], now=real + DAY, grace=GRACE, limit=10)
        assert len(answer.ready) == (0 if scene.store.server_time else 1)
        if scene.store.server_time:
            assert answer.next_due == real + DAY

    async def test_what_two_scanners_have_seen_coming_is_taken_by_one(self, scene: Scene, peer: Store) -> None:
        ids = [str(n) for n in range(5)]
        await scene.enqueue(*(scene.new(id, run_at=scene.now + 5) for id in ids))
        sides = (scene.delays, peer.get(Delays))
        for side in sides:
            assert (await side.take_due([QUEUE], now=scene.now, grace=GRACE, limit=10)).next_due == scene.now + 5
        scene.step(5)
        taken = await asyncio.gather(*(side.take_due([QUEUE], now=scene.now, grace=GRACE, limit=10) for side in sides))
        rest = await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=10)
        assert sorted(row.id for due in (*taken, rest) for row in due.ready) == ids

    async def test_what_was_put_off_or_removed_since_the_last_look_is_not_taken(self, scene: Scene) -> None:
        await scene.enqueue(*(scene.new(id, run_at=scene.now + 5) for id in ("kept", "later", "gone")))
        assert await scene.due() == []
        await scene.reschedule(Delay("later", scene.now + 100))
        await scene.delays.remove(QUEUE, ["gone"], now=scene.now)
        scene.step(5)
        assert await scene.due() == [("kept", 1)]
        scene.step(95)
        assert await scene.due() == [("later", 1)]

    async def test_what_is_due_earlier_than_all_that_was_seen_is_taken(self, scene: Scene) -> None:
        await scene.add("seen", run_at=scene.now + 5)
        assert await scene.due() == []
        await scene.add("new", run_at=scene.now + 1)
        scene.step(5)
        assert await scene.due() == [("new", 1), ("seen", 1)]

    # -- what is due soon ------------------------------------------------------------------------------------------

    async def test_a_job_that_is_taken_ahead_of_its_time_says_until_when_to_keep_its_ticket(self, scene: Scene) -> None:
        await scene.enqueue(
            *(scene.new(id, run_at=scene.now + n) for n, id in ((5, "due"), (30, "soon"), (31, "later")))
        )
        scene.step(10)
        answer = await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=10, ahead=20)
        assert {row.id: row.not_before for row in answer.ready} == {"due": 0, "soon": scene.now + 20}
        assert answer.next_due == scene.now + 21

    @pytest.mark.parametrize("seen", [False, True])
    async def test_no_relay_sends_a_job_that_was_taken_ahead_before_it_is_due(self, scene: Scene, seen: bool) -> None:
        await scene.add("job", run_at=scene.now + 30)
        if seen:
            await scene.due()
        scene.step(10)
        (row,) = (await scene.delays.take_due([QUEUE], now=scene.now, grace=0, limit=10, ahead=20)).ready
        job = await scene.job()
        assert (row.not_before, job.run_at) == (scene.now + 20, scene.now + 20)
        assert (job.state, job.dispatch, job.outbox) == (State.WAITING, 1, Outbox.DUE)
        scene.step(19)
        assert await scene.unpublished() == []
        scene.step(1)
        assert await scene.unpublished() == [("job", 1)]

    async def test_no_relay_whose_clock_is_ahead_sends_a_job_that_was_taken_ahead_before_it_is_due(
        self, scene: Scene
    ) -> None:
        real = SystemClock().now()
        await scene.enqueue(scene.new("job", run_at=real + DAY), scene.new("due", run_at=real - DAY))
        await scene.delays.take_due([QUEUE], now=real, grace=GRACE, limit=10, ahead=DAY)
        scene.now = real + 3 * DAY
        everything = [("due", 1), ("job", 1)]
        assert await scene.unpublished() == (everything[:1] if scene.store.server_time else everything)

    async def test_a_job_that_was_taken_ahead_is_sent_by_a_relay_whose_clock_is_ahead_once_it_is_due(
        self, scene: Scene
    ) -> None:
        clock = SystemClock()
        await scene.add("job", run_at=clock.now() + 200)
        await scene.delays.take_due([QUEUE], now=clock.now(), grace=GRACE, limit=10, ahead=DAY)
        scene.now = clock.now() + 3 * DAY
        async with asyncio.timeout(60):
            while not (sent := await scene.unpublished()):
                scene.step(GRACE)
                await asyncio.sleep(0.02)
        assert sent == [("job", 1)]

    async def test_a_job_that_was_taken_ahead_is_claimed_cancelled_and_given_up_as_one_that_waits(
        self, scene: Scene
    ) -> None:
        await scene.enqueue(*(scene.new(id, run_at=scene.now + 20) for id in ("runs", "cancelled", "kept")))
        assert len((await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=9, ahead=20)).ready) == 3
        assert await scene.reschedule(Delay("kept", scene.now + 900)) == [State.WAITING]
        assert await scene.delays.remove(QUEUE, ["kept"], now=scene.now) == [False]
        await scene.jobs.cancel(QUEUE, ["cancelled"], now=scene.now, keep=Keep())
        await scene.beat()
        verdicts = [(await scene.claim(id)).verdict for id in ("cancelled", "runs", "kept")]
        assert verdicts == [Verdict.FINAL, Verdict.CLAIMED, Verdict.CLAIMED]

    async def test_the_callers_clock_running_ahead_takes_nothing_ahead_either(self, scene: Scene) -> None:
        real = SystemClock().now()
        await scene.add("job", run_at=real + DAY)
        answer = await scene.delays.take_due([QUEUE], now=real + DAY, grace=GRACE, limit=10, ahead=20)
        assert len(answer.ready) == (0 if scene.store.server_time else 1)

    # -- delays that are changed -----------------------------------------------------------------------------------

    async def test_a_delayed_job_is_due_at_its_new_time(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 5_000)
        assert await scene.reschedule(Delay("job", scene.now + 9_000)) == [State.DELAYED]
        assert (await scene.job()).run_at == scene.now + 9_000
        scene.step(8_999)
        assert await scene.due() == []
        scene.step(1)
        assert await scene.due() == [("job", 1)]

    async def test_a_delayed_job_may_be_made_due_earlier(self, scene: Scene) -> None:
        await scene.add("other", run_at=scene.now + 4_000)
        await scene.add("job", run_at=scene.now + 5_000)
        assert await scene.reschedule(Delay("job", scene.now + 1_000)) == [State.DELAYED]
        page = await scene.inspection.page(QUEUE, State.DELAYED, offset=0, limit=10, newest_first=False)
        assert [job.id for job in page] == ["job", "other"]
        assert (await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=1)).next_due == scene.now + 1_000

    @pytest.mark.parametrize("after", [None, 0, -1])
    async def test_a_promoted_job_waits_at_once_and_is_given_to_its_caller(
        self, scene: Scene, after: int | None
    ) -> None:
        await scene.add("job", run_at=scene.now + 5_000, payload=b"\xff\x00", priority=8)
        run_at = None if after is None else scene.now + after
        assert await scene.reschedule(Delay("job", run_at)) == [Ready(QUEUE, "job", 1, 8, b"\xff\x00")]
        job = await scene.job()
        assert (job.state, job.dispatch, job.outbox) == (State.WAITING, 1, Outbox.DUE)
        assert job.run_at == (scene.now if run_at is None else run_at)
        assert await scene.due() == []
        await scene.beat()
        assert (await scene.claim("job", 1)).verdict is Verdict.CLAIMED

    async def test_a_promoted_job_that_nobody_sent_is_sent_by_a_relay(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 5_000)
        await scene.reschedule(Delay("job", None))
        scene.step(GRACE - 1)
        assert await scene.unpublished() == []
        scene.step(1)
        assert await scene.unpublished() == [("job", 1)]

    async def test_a_retry_that_waits_for_its_time_can_be_promoted(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY, run_at=scene.now + 5_000)
        (ready,) = await scene.reschedule(Delay("job", None))
        assert isinstance(ready, Ready)
        assert ready.dispatch == 2
        assert (await scene.claim("job", 2)).attempt == 2

    async def test_only_a_delayed_job_is_rescheduled_and_others_are_left_alone(self, scene: Scene) -> None:
        await scene.start("active")
        await scene.run("completed")
        await scene.add("waiting")
        ids = ("active", "completed", "waiting")
        before = [await scene.job(id) for id in ids]
        answers = await scene.reschedule(*(Delay(id, scene.now + 9_000) for id in (*ids, "nobody")))
        assert answers == [State.ACTIVE, State.COMPLETED, State.WAITING, None]
        assert [await scene.job(id) for id in ids] == before

    async def test_what_was_promoted_is_not_promoted_again(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 5_000)
        first, second = await scene.reschedule(Delay("job", None), Delay("job", None))
        assert (isinstance(first, Ready), second) == (True, State.WAITING)
        assert await scene.reschedule(Delay("job", None)) == [State.WAITING]
        assert (await scene.job()).dispatch == 1

    async def test_the_callers_clock_running_ahead_does_not_make_a_new_time_come(self, scene: Scene) -> None:
        real = SystemClock().now()
        await scene.add("job", run_at=real + DAY)
        (answer,) = await scene.delays.reschedule(
            QUEUE, [Delay("job", real + 2 * DAY)], now=real + 3 * DAY, grace=GRACE
        )
        assert isinstance(answer, Ready) != scene.store.server_time

    async def test_a_delayed_job_is_removed_by_those_that_remove_delayed_ones(self, scene: Scene) -> None:
        await scene.add_unique("job", ttl=60_000, run_at=scene.now + 5_000)
        assert list(await scene.delays.remove(QUEUE, ["job", "nobody", "job"], now=scene.now)) == [True, False, False]
        assert await scene.find("job") is None
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) is None
        await scene.beat()
        assert (await scene.claim("job")).verdict is Verdict.GONE

    async def test_a_job_that_became_due_is_not_removed_with_the_delayed_ones(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 1)
        scene.step(1)
        await scene.due()
        assert list(await scene.delays.remove(QUEUE, ["job"], now=scene.now)) == [False]
        assert (await scene.job()).state is State.WAITING

    async def test_each_due_job_is_given_to_a_scanner_or_to_who_promotes_it_or_is_removed(
        self, scene: Scene, peer: Store
    ) -> None:
        ids = [str(n) for n in range(40)]
        await scene.enqueue(*(scene.new(id, run_at=scene.now + 1) for id in ids))
        scene.step(1)
        other = peer.get(Delays)
        due, promoted, removed = await asyncio.gather(
            scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=MANY),
            other.reschedule(QUEUE, [Delay(id, None) for id in ids], now=scene.now, grace=GRACE),
            peer.get(Delays).remove(QUEUE, ids, now=scene.now),
        )
        taken = [row.id for row in due.ready] + [row.id for row in promoted if isinstance(row, Ready)]
        gone = [id for id, was in zip(ids, removed, strict=True) if was]
        assert sorted(taken + gone) == sorted(ids)
        assert {(await scene.job(id)).dispatch for id in taken} <= {1}
