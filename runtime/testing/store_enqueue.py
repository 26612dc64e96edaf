"""What `enqueue`, `published`, deduplication and the outbox promise (protocol T1, T2, T4, T15)."""

from __future__ import annotations

import asyncio

from ...metadata.contract import Admission, Ending, Store, Verdict
from ...metadata.job import Keep, Outbox, State
from .store_scene import GRACE, QUEUE, Scene, StoreSuite

KEEP = Keep()
BRIEF = Keep(age=1_000)


class EnqueueConformance(StoreSuite):
    # -- enqueue -----------------------------------------------------------------------------------------------

    async def test_a_new_job_is_created_waiting_at_dispatch_1(self, scene: Scene) -> None:
        answer = await scene.add("job")
        assert (answer.id, answer.admission, answer.state, answer.dispatch) == (
            "job",
            Admission.CREATED,
            State.WAITING,
            1,
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
        assert [answer.admission for answer in answers] == [Admission.CREATED, Admission.EXISTING, Admission.CREATED]

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
