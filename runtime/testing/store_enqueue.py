"""What `enqueue`, `published`, deduplication and the outbox promise (protocol T1, T2, T4, T15; 2.13)."""

from __future__ import annotations

import asyncio

from ...metadata.contract import Admission, Counts, Ending, Store, Verdict
from ...metadata.job import Deduplication, Keep, Outbox, State
from .store_scene import GRACE, MANY, OTHER, QUEUE, Scene, StoreSuite

KEEP = Keep()
BRIEF = Keep(age=1_000)


class EnqueueConformance(StoreSuite):
    # -- enqueue -----------------------------------------------------------------------------------------------

    async def test_a_new_job_is_created_waiting_at_dispatch_1(self, scene: Scene) -> None:
        answer = await scene.add("job")
        assert (answer.id, answer.admission, answer.state, answer.dispatch) == (
            "job", Admission.CREATED, State.WAITING, 1
        )
        assert answer.replaced is None

    async def test_a_record_holds_what_was_enqueued(self, scene: Scene) -> None:
        await scene.add("job", payload=b"\x00\xff{}", priority=3, expires_at=scene.now + 5_000)
        job = await scene.job()
        assert (job.id, job.queue, job.task, job.payload) == ("job", QUEUE, "task", b"\x00\xff{}")
        assert (job.priority, job.created_at, job.expires_at) == (3, scene.now, scene.now + 5_000)
        assert (job.state, job.dispatch, job.outbox) == (State.WAITING, 1, Outbox.DUE)
        assert (job.attempts, job.failures, job.stalled, job.owner, job.history) == (0, 0, 0, None, ())
        assert (job.result, job.error, job.cancel_requested) == (None, None, False)

    async def test_a_new_jobs_outbox_is_not_due_before_the_grace_is_over(self, scene: Scene) -> None:
        await scene.add("job")
        scene.step(GRACE - 1)
        assert await scene.unpublished() == []

    async def test_a_new_jobs_outbox_is_due_when_the_grace_is_over(self, scene: Scene) -> None:
        await scene.add("job")
        scene.step(GRACE)
        assert await scene.unpublished() == [("job", 1)]

    async def test_a_job_with_a_later_run_at_is_delayed_at_dispatch_0(self, scene: Scene) -> None:
        answer = await scene.add("job", run_at=scene.now + 1)
        assert (answer.state, answer.dispatch) == (State.DELAYED, 0)
        assert (await scene.job()).run_at == scene.now + 1

    async def test_a_delayed_job_is_in_no_outbox(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 10_000)
        scene.step(GRACE)
        assert await scene.unpublished() == []

    async def test_a_job_whose_run_at_is_now_waits(self, scene: Scene) -> None:
        assert (await scene.add("job", run_at=scene.now)).state is State.WAITING

    async def test_a_job_whose_run_at_is_past_waits(self, scene: Scene) -> None:
        assert (await scene.add("job", run_at=scene.now - 1)).state is State.WAITING

    async def test_the_same_job_again_is_answered_created_and_not_recorded_again(self, scene: Scene) -> None:
        first = await scene.add("job")
        again = await scene.add("job")
        assert again == first
        assert (await scene.inspection.counts([QUEUE]))[QUEUE].waiting == 1

    async def test_the_same_job_again_does_not_put_off_its_outbox(self, scene: Scene) -> None:
        await scene.add("job")
        scene.step(GRACE)
        await scene.add("job")
        assert await scene.unpublished() == [("job", 1)]

    async def test_the_same_job_again_while_it_runs_changes_nothing(self, scene: Scene) -> None:
        await scene.start("job")
        before = await scene.job()
        answer = await scene.add("job")
        assert (answer.admission, answer.state, answer.dispatch) == (Admission.CREATED, State.ACTIVE, 1)
        assert await scene.job() == before

    async def test_the_same_job_again_after_its_end_changes_nothing(self, scene: Scene) -> None:
        await scene.run("job")
        before = await scene.job()
        assert (await scene.add("job")).state is State.COMPLETED
        assert await scene.job() == before

    async def test_another_payload_under_a_taken_id_is_answered_existing(self, scene: Scene) -> None:
        await scene.add("job", payload=b"one")
        before = await scene.job()
        answer = await scene.add("job", payload=b"two")
        assert (answer.id, answer.admission) == ("job", Admission.EXISTING)
        assert (answer.state, answer.dispatch) == (State.WAITING, 1)
        assert await scene.job() == before

    async def test_an_id_is_taken_in_its_own_queue_only(self, scene: Scene) -> None:
        await scene.add("job")
        assert (await scene.add("job", queue="reports", payload=b"another")).admission is Admission.CREATED
        assert (await scene.job("job", "reports")).payload == b"another"
        assert (await scene.job("job")).payload == b"payload of job"

    async def test_jobs_of_several_queues_are_answered_in_order(self, scene: Scene) -> None:
        answers = await scene.enqueue(
            scene.new("1"), scene.new("2", queue="reports"), scene.new("3"), scene.new("4", queue="reports")
        )
        assert [answer.id for answer in answers] == ["1", "2", "3", "4"]
        counts = await scene.inspection.counts([QUEUE, "reports"])
        assert (counts[QUEUE].waiting, counts["reports"].waiting) == (2, 2)

    async def test_an_entry_meets_the_entries_before_it(self, scene: Scene) -> None:
        answers = await scene.enqueue(
            scene.new("job", payload=b"one"), scene.new("job", payload=b"two"), scene.new("job", payload=b"one")
        )
        assert [answer.admission for answer in answers] == [
            Admission.CREATED, Admission.EXISTING, Admission.CREATED
        ]

    async def test_an_id_whose_record_was_removed_may_be_enqueued_again(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.jobs.remove(QUEUE, ["job"], now=scene.now)
        answer = await scene.add("job")
        await scene.beat()
        assert answer.admission is Admission.CREATED
        assert (await scene.claim("job", answer.dispatch)).verdict is Verdict.CLAIMED

    async def test_of_many_producers_of_one_id_one_creates_it(self, scene: Scene, peer: Store) -> None:
        other = Scene(peer, scene.now)
        answers = await asyncio.gather(
            *(side.add("job", payload=b"%d" % number) for number in range(20) for side in (scene, other))
        )
        payload = (await scene.job()).payload
        created = [number for number, answer in enumerate(answers) if answer.admission is Admission.CREATED]
        assert {number // 2 for number in created} == {int(payload)}
        assert (await scene.inspection.counts([QUEUE]))[QUEUE].waiting == 1

    # -- published and the relay ---------------------------------------------------------------------------------

    async def test_a_confirmed_ticket_is_sent(self, scene: Scene) -> None:
        await scene.add("job")
        scene.step(5)
        await scene.confirm("job")
        job = await scene.job()
        assert (job.state, job.outbox, job.sent_at) == (State.WAITING, Outbox.SENT, scene.now)

    async def test_a_sent_job_is_not_sent_again_by_the_relay(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.confirm("job")
        scene.step(10 * GRACE)
        assert await scene.unpublished() == []

    async def test_a_repeated_confirmation_does_not_move_sent_at(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.confirm("job")
        before = await scene.job()
        scene.step(5)
        await scene.confirm("job")
        assert await scene.job() == before

    async def test_a_confirmation_of_an_old_dispatch_does_not_clear_the_outbox(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY)
        before = await scene.job()
        await scene.confirm("job", 1)
        assert await scene.job() == before
        scene.step(GRACE)
        assert await scene.unpublished() == [("job", 2)]

    async def test_a_confirmation_of_a_dispatch_to_come_does_not_clear_the_outbox(self, scene: Scene) -> None:
        await scene.add("job")
        before = await scene.job()
        await scene.confirm("job", 2)
        assert await scene.job() == before

    async def test_a_confirmation_after_the_claim_changes_nothing(self, scene: Scene) -> None:
        await scene.start("job")
        before = await scene.job()
        await scene.confirm("job")
        assert await scene.job() == before

    async def test_a_confirmation_of_a_delayed_or_final_or_unknown_job_changes_nothing(self, scene: Scene) -> None:
        await scene.add("later", run_at=scene.now + 5_000)
        await scene.run("done")
        before = [await scene.job("later"), await scene.job("done")]
        await scene.confirm("later", 0)
        await scene.confirm("done", 1)
        await scene.confirm("nobody", 1)
        assert [await scene.job("later"), await scene.job("done")] == before
        assert await scene.find("nobody") is None

    async def test_a_taken_outbox_entry_is_due_again_a_grace_later(self, scene: Scene) -> None:
        await scene.add("job")
        scene.step(GRACE)
        await scene.unpublished()
        scene.step(GRACE - 1)
        assert await scene.unpublished() == []
        scene.step(1)
        assert await scene.unpublished() == [("job", 1)]

    async def test_the_relay_is_given_all_that_a_ticket_needs(self, scene: Scene) -> None:
        await scene.add("job", payload=b"\xff\x00", priority=9)
        scene.step(GRACE)
        (row,) = await scene.jobs.take_unpublished([QUEUE], now=scene.now, grace=GRACE, limit=1)
        assert (row.queue, row.id, row.dispatch, row.priority, row.payload) == (QUEUE, "job", 1, 9, b"\xff\x00")

    async def test_the_relay_takes_up_to_its_limit_from_each_queue(self, scene: Scene) -> None:
        await scene.enqueue(*(scene.new(str(n), queue=queue) for n in range(3) for queue in (QUEUE, "reports")))
        scene.step(GRACE)
        rows = await scene.jobs.take_unpublished([QUEUE, "reports"], now=scene.now, grace=GRACE, limit=2)
        assert sorted(row.queue for row in rows) == [QUEUE, QUEUE, "reports", "reports"]

    async def test_two_relays_never_take_one_entry_twice_in_a_grace(self, scene: Scene, peer: Store) -> None:
        other = Scene(peer, scene.now + GRACE)
        await scene.enqueue(*(scene.new(str(n)) for n in range(40)))
        scene.step(GRACE)
        taken = await asyncio.gather(*(side.unpublished(limit=7) for _ in range(4) for side in (scene, other)))
        ids = [id for batch in taken for id, _ in batch]
        assert sorted(ids) == sorted(str(n) for n in range(40))

    # -- deduplication ---------------------------------------------------------------------------------------------

    async def test_a_held_deduplication_id_refuses_a_newcomer_and_names_the_holder(self, scene: Scene) -> None:
        await scene.add_unique("holder")
        answer = await scene.add_unique("newcomer")
        assert (answer.id, answer.admission, answer.state, answer.dispatch) == (
            "holder", Admission.DEDUPLICATED, State.WAITING, 1
        )
        assert await scene.find("newcomer") is None

    async def test_a_repeat_of_the_holders_enqueue_is_answered_created(self, scene: Scene) -> None:
        await scene.add_unique("holder")
        assert (await scene.add_unique("holder")).admission is Admission.CREATED

    async def test_the_holder_of_a_deduplication_id_can_be_asked_for(self, scene: Scene) -> None:
        await scene.add_unique("holder")
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) == "holder"
        assert await scene.deduplicating.holder(QUEUE, "other", now=scene.now) is None

    async def test_a_deduplication_id_counts_in_its_own_queue_only(self, scene: Scene) -> None:
        await scene.add_unique("holder")
        answer = await scene.add("newcomer", queue="reports", deduplication=Deduplication(id="key"))
        assert answer.admission is Admission.CREATED

    async def test_a_running_holder_keeps_its_deduplication_id(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder")
        await scene.claim("holder")
        assert (await scene.add_unique("newcomer")).admission is Admission.DEDUPLICATED

    async def test_a_retried_holder_keeps_its_deduplication_id(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder")
        await scene.claim("holder")
        await scene.finish("holder", Ending.RETRY, run_at=scene.now + 5_000)
        assert (await scene.add_unique("newcomer")).id == "holder"

    async def test_completion_frees_the_deduplication_id(self, scene: Scene) -> None:
        await self._ends(scene, Ending.COMPLETED)

    async def test_failure_frees_the_deduplication_id(self, scene: Scene) -> None:
        await self._ends(scene, Ending.FAILED)

    async def test_cancellation_of_a_run_frees_the_deduplication_id(self, scene: Scene) -> None:
        await self._ends(scene, Ending.CANCELLED)

    async def _ends(self, scene: Scene, ending: Ending) -> None:
        await scene.beat()
        await scene.add_unique("holder")
        await scene.claim("holder")
        await scene.finish("holder", ending)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) is None
        assert (await scene.add_unique("newcomer")).admission is Admission.CREATED

    async def test_cancelling_a_waiting_holder_frees_the_deduplication_id(self, scene: Scene) -> None:
        await scene.add_unique("holder")
        await scene.jobs.cancel(QUEUE, ["holder"], now=scene.now, keep=KEEP)
        assert (await scene.add_unique("newcomer")).admission is Admission.CREATED

    async def test_the_expiry_of_the_holder_frees_the_deduplication_id(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("holder", deduplication=Deduplication(id="key"), expires_at=scene.now + 10)
        scene.step(11)
        assert (await scene.claim("holder")).verdict is Verdict.EXPIRED
        assert (await scene.add_unique("newcomer")).admission is Admission.CREATED

    async def test_a_holder_lost_for_good_frees_the_deduplication_id(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder")
        await scene.claim("holder")
        await scene.lose()
        assert (await scene.stalled(max_stalled=0)).failed == ["holder"]
        assert (await scene.add_unique("newcomer")).admission is Admission.CREATED

    async def test_removing_the_holder_frees_the_deduplication_id_whatever_its_ttl(self, scene: Scene) -> None:
        await scene.add_unique("holder", ttl=60_000)
        await scene.jobs.remove(QUEUE, ["holder"], now=scene.now)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) is None
        assert (await scene.add_unique("newcomer")).admission is Admission.CREATED

    async def test_another_jobs_end_does_not_free_the_deduplication_id(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("first")
        await scene.deduplicating.release(QUEUE, "key")
        await scene.add_unique("second")
        await scene.claim("first")
        await scene.finish("first")
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) == "second"

    async def test_another_jobs_removal_does_not_free_the_deduplication_id(self, scene: Scene) -> None:
        await scene.add_unique("first")
        await scene.deduplicating.release(QUEUE, "key")
        await scene.add_unique("second")
        await scene.jobs.remove(QUEUE, ["first"], now=scene.now)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) == "second"

    async def test_a_released_deduplication_id_is_free_and_its_job_untouched(self, scene: Scene) -> None:
        await scene.add_unique("holder")
        before = await scene.job("holder")
        assert await scene.deduplicating.release(QUEUE, "key")
        assert await scene.job("holder") == before
        assert (await scene.add_unique("newcomer")).admission is Admission.CREATED

    async def test_releasing_a_free_deduplication_id_is_answered_no(self, scene: Scene) -> None:
        assert not await scene.deduplicating.release(QUEUE, "key")

    async def test_a_ttl_holds_the_deduplication_id_beyond_the_end_of_the_job(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder", ttl=10_000)
        await scene.claim("holder")
        await scene.finish("holder")
        scene.step(9_999)
        answer = await scene.add_unique("newcomer", ttl=10_000)
        assert (answer.id, answer.admission, answer.state) == ("holder", Admission.DEDUPLICATED, State.COMPLETED)

    async def test_a_ttl_frees_the_deduplication_id_while_the_job_waits(self, scene: Scene) -> None:
        await scene.add_unique("holder", ttl=10_000)
        scene.step(10_001)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) is None
        assert (await scene.add_unique("newcomer", ttl=10_000)).admission is Admission.CREATED

    async def test_a_refused_newcomer_does_not_prolong_the_window(self, scene: Scene) -> None:
        await scene.add_unique("holder", ttl=10_000)
        scene.step(9_000)
        await scene.add_unique("refused", ttl=10_000)
        scene.step(1_001)
        assert (await scene.add_unique("newcomer", ttl=10_000)).admission is Admission.CREATED

    async def test_a_refused_newcomer_with_extend_starts_the_window_anew(self, scene: Scene) -> None:
        await scene.add_unique("holder", ttl=10_000, extend=True)
        scene.step(9_000)
        await scene.add_unique("refused", ttl=10_000, extend=True)
        scene.step(9_999)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) == "holder"
        scene.step(2)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) is None

    async def test_the_window_outlives_the_holders_record(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder", ttl=60_000)
        await scene.claim("holder")
        await scene.finish("holder", keep=BRIEF)
        scene.step(2_000)
        await scene.prune()
        assert await scene.find("holder") is None
        answer = await scene.add_unique("newcomer", ttl=60_000)
        assert (answer.id, answer.admission, answer.state.final) == ("holder", Admission.DEDUPLICATED, True)

    async def test_replace_puts_a_newcomer_in_the_place_of_a_delayed_holder(self, scene: Scene) -> None:
        await scene.add_unique("holder", run_at=scene.now + 5_000, replace=True)
        answer = await scene.add_unique("newcomer", run_at=scene.now + 6_000, replace=True)
        assert (answer.id, answer.admission, answer.state) == ("newcomer", Admission.REPLACED, State.DELAYED)
        assert answer.replaced == "holder"
        assert await scene.find("holder") is None
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) == "newcomer"

    async def test_a_replaced_job_never_becomes_due(self, scene: Scene) -> None:
        await scene.add_unique("holder", run_at=scene.now + 5_000, replace=True)
        await scene.add_unique("newcomer", run_at=scene.now + 6_000, replace=True)
        scene.step(10_000)
        assert await scene.due() == [("newcomer", 1)]

    async def test_a_replaced_job_that_never_ran_leaves_no_tombstone(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder", run_at=scene.now + 5_000, replace=True)
        await scene.add_unique("newcomer", run_at=scene.now + 6_000, replace=True)
        assert (await scene.claim("holder")).verdict is Verdict.UNKNOWN

    async def test_a_replaced_job_that_had_been_sent_leaves_a_tombstone(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder", replace=True)
        await scene.claim("holder")
        await scene.finish("holder", Ending.RETRY, run_at=scene.now + 5_000)
        assert (await scene.add_unique("newcomer", replace=True)).replaced == "holder"
        assert (await scene.claim("holder")).verdict is Verdict.GONE

    async def test_replace_does_not_touch_a_waiting_holder(self, scene: Scene) -> None:
        await scene.add_unique("holder", replace=True)
        assert (await scene.add_unique("newcomer", replace=True)).admission is Admission.DEDUPLICATED

    async def test_replace_does_not_touch_a_running_holder(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add_unique("holder", replace=True)
        await scene.claim("holder")
        assert (await scene.add_unique("newcomer", replace=True)).admission is Admission.DEDUPLICATED

    async def test_without_replace_a_delayed_holder_stays(self, scene: Scene) -> None:
        await scene.add_unique("holder", run_at=scene.now + 5_000)
        answer = await scene.add_unique("newcomer", run_at=scene.now + 6_000)
        assert (answer.id, answer.admission) == ("holder", Admission.DEDUPLICATED)

    async def test_a_replacing_newcomer_keeps_the_windows_end(self, scene: Scene) -> None:
        await scene.add_unique("holder", run_at=scene.now + 50_000, ttl=10_000, replace=True)
        scene.step(9_000)
        await scene.add_unique("newcomer", run_at=scene.now + 50_000, ttl=10_000, replace=True)
        scene.step(1_001)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) is None

    async def test_a_replacing_newcomer_with_extend_starts_the_window_anew(self, scene: Scene) -> None:
        await scene.add_unique("holder", run_at=scene.now + 50_000, ttl=10_000, replace=True, extend=True)
        scene.step(9_000)
        await scene.add_unique("newcomer", run_at=scene.now + 50_000, ttl=10_000, replace=True, extend=True)
        scene.step(9_999)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) == "newcomer"

    async def test_a_chain_of_replacements_leaves_the_last_job_alone(self, scene: Scene) -> None:
        for number in range(10):
            await scene.add_unique(f"job-{number}", run_at=scene.now + 5_000, replace=True, extend=True, ttl=5_000)
            scene.step(100)
        assert (await scene.inspection.counts([QUEUE]))[QUEUE] == Counts(delayed=1)
        assert (await scene.job("job-9")).state is State.DELAYED

    async def test_of_many_producers_in_one_window_one_creates_a_job(self, scene: Scene, peer: Store) -> None:
        other = Scene(peer, scene.now)
        answers = await asyncio.gather(
            *(side.add_unique(f"{name}-{n}") for n in range(20) for name, side in (("a", scene), ("b", other)))
        )
        assert sum(answer.admission is Admission.CREATED for answer in answers) == 1
        assert len({answer.id for answer in answers}) == 1
        assert (await scene.inspection.counts([QUEUE]))[QUEUE].waiting == 1

    async def test_the_holders_recovery_keeps_its_deduplication_id(self, scene: Scene) -> None:
        await scene.beat()
        await scene.beat(OTHER)
        await scene.add_unique("holder")
        await scene.claim("holder")
        await scene.lose()
        await scene.stalled()
        assert (await scene.add_unique("newcomer")).id == "holder"
        assert await scene.unpublished(limit=MANY) == []
