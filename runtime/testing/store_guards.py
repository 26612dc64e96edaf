"""What keeps a waiting job from being claimed: its expiry, a pause, a dead claimer (protocol T5, T19; D3, D11)."""

from __future__ import annotations

from ...metadata.contract import Ending, Ticket, Verdict
from ...metadata.job import Keep, Outbox, State
from .store_scene import GRACE, QUEUE, Scene, StoreSuite


class GuardConformance(StoreSuite):
    # -- expiry ----------------------------------------------------------------------------------------------------

    async def test_a_job_past_its_expiry_ends_as_expired_when_it_is_claimed(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", expires_at=scene.now + 10)
        scene.step(11)
        answer = await scene.claim("job")
        job = await scene.job()
        assert (answer.verdict, answer.fence, answer.attempt) == (Verdict.EXPIRED, 0, 0)
        assert (job.state, job.finished_at, job.attempts, job.owner) == (State.EXPIRED, scene.now, 0, None)

    async def test_a_job_before_its_expiry_is_claimed(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", expires_at=scene.now + 10)
        scene.step(9)
        assert (await scene.claim("job")).verdict is Verdict.CLAIMED

    async def test_a_job_that_has_run_does_not_expire(self, scene: Scene) -> None:
        await scene.start("job", expires_at=scene.now + 10)
        await scene.finish("job", Ending.RETRY)
        scene.step(11)
        assert (await scene.claim("job", 2)).verdict is Verdict.CLAIMED

    async def test_a_copy_of_an_expired_jobs_ticket_changes_nothing(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", expires_at=scene.now + 10)
        scene.step(11)
        await scene.claim("job")
        before = await scene.job()
        assert (await scene.claim("job")).verdict in (Verdict.EXPIRED, Verdict.FINAL)
        assert await scene.job() == before

    async def test_an_expired_record_is_kept_as_the_claim_says(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", expires_at=scene.now + 10)
        scene.step(11)
        await scene.claims(Ticket("job", 1), keep=Keep(age=1_000))
        scene.step(1_001)
        await scene.prune()
        assert await scene.find("job") is None

    # -- pause -----------------------------------------------------------------------------------------------------

    async def test_no_claim_begins_after_pause_returned(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        answer = await scene.claim("job")
        job = await scene.job()
        assert (answer.verdict, answer.fence, answer.attempt) == (Verdict.PAUSED, 0, 0)
        assert (job.state, job.outbox, job.dispatch, job.attempts) == (State.WAITING, Outbox.HELD, 2, 0)

    async def test_a_held_job_stays_in_the_store_while_its_queue_is_paused(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        await scene.claim("job")
        scene.step(10 * GRACE)
        assert await scene.unpublished() == []

    async def test_a_late_confirmation_of_a_held_jobs_ticket_does_not_lose_it(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        await scene.claim("job")
        await scene.confirm("job", 1)
        await scene.control.resume(QUEUE)
        assert await scene.unpublished() == [("job", 2)]

    async def test_a_held_job_comes_out_after_resume_and_runs(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        await scene.claim("job")
        await scene.control.resume(QUEUE)
        assert await scene.unpublished() == [("job", 2)]
        assert (await scene.job()).outbox is Outbox.DUE
        assert (await scene.claim("job", 2)).verdict is Verdict.CLAIMED

    async def test_a_resumed_job_is_taken_once_in_a_grace(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        await scene.claim("job")
        await scene.control.resume(QUEUE)
        await scene.unpublished()
        assert await scene.unpublished() == []
        scene.step(GRACE)
        assert await scene.unpublished() == [("job", 2)]

    async def test_the_old_ticket_of_a_held_job_never_runs(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        await scene.claim("job")
        await scene.control.resume(QUEUE)
        assert (await scene.claim("job", 1)).verdict is Verdict.STALE

    async def test_a_repeated_claim_of_a_held_ticket_changes_nothing(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        await scene.claim("job")
        before = await scene.job()
        assert (await scene.claim("job")).verdict in (Verdict.PAUSED, Verdict.STALE)
        assert await scene.job() == before

    async def test_a_running_job_runs_on_in_a_paused_queue(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.control.pause(QUEUE)
        assert (await scene.claim("job")).verdict is Verdict.MINE
        assert (await scene.finish("job")).state is State.COMPLETED

    async def test_a_paused_queue_takes_new_jobs(self, scene: Scene) -> None:
        await scene.control.pause(QUEUE)
        assert (await scene.add("job")).state is State.WAITING

    async def test_a_paused_queue_still_tells_that_a_ticket_is_stale_or_final(self, scene: Scene) -> None:
        await scene.run("done")
        await scene.start("again")
        await scene.finish("again", Ending.RETRY)
        await scene.control.pause(QUEUE)
        assert (await scene.claim("done")).verdict is Verdict.FINAL
        assert (await scene.claim("again")).verdict is Verdict.STALE

    # -- the claimer -----------------------------------------------------------------------------------------------

    async def test_a_boot_without_a_row_claims_nothing(self, scene: Scene) -> None:
        await scene.add("job")
        before = await scene.job()
        assert (await scene.claim("job")).verdict is Verdict.DEAD
        assert await scene.job() == before

    async def test_a_boot_with_a_row_in_another_queue_only_claims_nothing(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.beat(queue="reports")
        assert (await scene.claim("job")).verdict is Verdict.DEAD

    async def test_a_dead_boot_claims_nothing(self, scene: Scene) -> None:
        await scene.beat()
        await scene.lose()
        await scene.add("job")
        before = await scene.job()
        assert (await scene.claim("job")).verdict is Verdict.DEAD
        assert await scene.job() == before

    async def test_a_dead_boot_adopts_nothing(self, scene: Scene) -> None:
        await scene.beat()
        await scene.lose()
        assert (await scene.claim("job", 1, adopt=scene.new("job"))).verdict is Verdict.DEAD
        assert await scene.find("job") is None

    async def test_a_dead_boot_is_told_so_even_of_the_job_it_held(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        assert (await scene.claim("job")).verdict is Verdict.DEAD
