"""What `claim` promises (protocol T5, T6, T19; D2, D3, D11; 2.10), verdict by verdict in the order of its docstring."""

from __future__ import annotations

import asyncio

from ...metadata.contract import Admission, Ending, Store, Ticket, Verdict
from ...metadata.job import Deduplication, Keep, Outbox, State
from .store_scene import BOOT, GRACE, OTHER, QUEUE, Scene, StoreSuite


class ClaimConformance(StoreSuite):
    async def test_a_claimed_job_is_active_at_the_tickets_dispatch_and_owned(self, scene: Scene) -> None:
        scene.step(7)
        answer = await scene.start("job")
        job = await scene.job()
        assert (answer.id, answer.verdict, answer.attempt) == ("job", Verdict.CLAIMED, 1)
        assert (job.state, job.dispatch, job.owner, job.attempts) == (State.ACTIVE, 1, "boot-a", 1)
        assert (job.claimed_at, job.outbox, job.sent_at) == (scene.now, Outbox.NONE, None)
        assert job.fence == answer.fence > 0

    async def test_a_claim_takes_the_job_out_of_the_outbox(self, scene: Scene) -> None:
        await scene.start("job")
        scene.step(10 * GRACE)
        assert await scene.unpublished() == []

    async def test_a_claim_of_a_sent_job_takes_it_from_what_may_be_overtaken(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.confirm("job")
        assert (await scene.claim("job")).verdict is Verdict.CLAIMED
        assert await scene.overtaken(sent_before=scene.now + 1) == []

    async def test_a_repeated_claim_by_its_owner_is_answered_mine_with_the_same_numbers(self, scene: Scene) -> None:
        first = await scene.start("job")
        before = await scene.job()
        again = await scene.claim("job")
        assert again.verdict is Verdict.MINE
        assert (again.fence, again.attempt, again.failures, again.stalled) == (
            first.fence,
            first.attempt,
            first.failures,
            first.stalled,
        )
        assert await scene.job() == before

    async def test_a_copy_of_a_claimed_ticket_is_taken_for_another_boot(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.beat(OTHER)
        before = await scene.job()
        answer = await scene.claim("job", owner=OTHER)
        assert (answer.verdict, answer.fence, answer.attempt) == (Verdict.TAKEN, 0, 0)
        assert await scene.job() == before

    async def test_an_older_ticket_of_a_running_job_is_taken_even_for_its_owner(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY)
        await scene.claim("job", 2)
        before = await scene.job()
        assert (await scene.claim("job", 1)).verdict is Verdict.TAKEN
        assert await scene.job() == before

    async def test_an_older_ticket_of_a_waiting_job_is_stale(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY)
        before = await scene.job()
        assert (await scene.claim("job", 1)).verdict is Verdict.STALE
        assert await scene.job() == before

    async def test_an_older_ticket_of_a_delayed_job_is_stale(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY)
        await scene.claim("job", 2)
        await scene.finish("job", Ending.RETRY, dispatch=2, run_at=scene.now + 5_000)
        assert (await scene.claim("job", 1)).verdict is Verdict.STALE

    async def test_a_ticket_of_a_delayed_job_at_its_own_dispatch_is_not_due(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY, run_at=scene.now + 5_000)
        before = await scene.job()
        assert (await scene.claim("job", 1)).verdict is Verdict.NOT_DUE
        assert await scene.job() == before

    async def test_a_delayed_job_is_not_claimed_by_a_ticket_of_its_own_dispatch_when_due(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY, run_at=scene.now + 5_000)
        before = await scene.job()
        scene.step(5_001)
        assert (await scene.claim("job", 1)).verdict is Verdict.NOT_DUE
        assert await scene.job() == before

    async def test_a_newer_ticket_does_not_start_a_delayed_job_early(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", run_at=scene.now + 5_000)
        before = await scene.job()
        assert (await scene.claim("job", 1)).verdict is Verdict.NOT_DUE
        assert await scene.job() == before

    async def test_a_newer_ticket_claims_a_delayed_job_whose_time_has_come(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", run_at=scene.now + 5_000)
        scene.step(5_000)
        assert (await scene.claim("job", 1)).verdict is Verdict.CLAIMED
        assert await scene.due() == []

    async def test_a_newer_ticket_claims_a_waiting_job(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        assert (await scene.claim("job", 4)).verdict is Verdict.CLAIMED
        assert (await scene.job()).dispatch == 4

    async def test_a_newer_ticket_claims_a_job_that_is_active_at_an_older_dispatch(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.beat(OTHER)
        assert (await scene.claim("job", 2, owner=OTHER)).verdict is Verdict.CLAIMED
        job = await scene.job()
        assert (job.dispatch, job.owner, job.attempts) == (2, OTHER, 2)
        assert [row.active for row in sorted(await scene.workers.workers([QUEUE]), key=lambda row: row.boot)] == [0, 1]

    async def test_a_ticket_of_a_final_job_is_answered_final(self, scene: Scene) -> None:
        await scene.run("job")
        before = await scene.job()
        assert (await scene.claim("job", 1)).verdict is Verdict.FINAL
        assert await scene.job() == before

    async def test_a_ticket_ahead_of_a_final_job_is_not_run(self, scene: Scene) -> None:
        await scene.run("job")
        before = await scene.job()
        assert (await scene.claim("job", 2)).verdict is Verdict.AHEAD
        assert await scene.job() == before

    async def test_a_cancelled_waiting_job_never_starts(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.jobs.cancel(QUEUE, ["job"], now=scene.now, keep=Keep())
        assert (await scene.claim("job")).verdict is Verdict.FINAL

    async def test_an_unknown_id_is_answered_unknown_and_not_recorded(self, scene: Scene) -> None:
        await scene.beat()
        answer = await scene.claim("nobody")
        assert (answer.verdict, answer.fence, answer.attempt, answer.parked_at) == (Verdict.UNKNOWN, 0, 0, None)
        assert await scene.find("nobody") is None

    async def test_a_removed_id_is_answered_gone(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.jobs.remove(QUEUE, ["job"], now=scene.now)
        assert (await scene.claim("job")).verdict is Verdict.GONE

    async def test_an_unknown_id_is_adopted_with_the_tickets_job(self, scene: Scene) -> None:
        await scene.beat()
        answer = await scene.claim("job", 3, adopt=scene.new("job", payload=b"carried", priority=2))
        job = await scene.job()
        assert (answer.verdict, answer.attempt, answer.fence) == (Verdict.CLAIMED, 1, job.fence)
        assert (job.state, job.dispatch, job.owner, job.payload, job.priority) == (
            State.ACTIVE,
            3,
            "boot-a",
            b"carried",
            2,
        )

    async def test_an_adopted_jobs_claim_repeated_is_mine(self, scene: Scene) -> None:
        await scene.beat()
        await scene.claim("job", 1, adopt=scene.new("job"))
        before = await scene.job()
        assert (await scene.claim("job", 1, adopt=scene.new("job"))).verdict is Verdict.MINE
        assert await scene.job() == before

    async def test_a_known_job_is_not_adopted_again(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", payload=b"recorded")
        await scene.claim("job", 1, adopt=scene.new("job", payload=b"carried"))
        assert (await scene.job()).payload == b"recorded"

    async def test_the_enqueue_that_comes_after_its_adoption_is_answered_created(self, scene: Scene) -> None:
        await scene.beat()
        await scene.claim("job", 1, adopt=scene.new("job"))
        before = await scene.job()
        answer = await scene.add("job")
        assert (answer.admission, answer.state, answer.dispatch) == (Admission.CREATED, State.ACTIVE, 1)
        assert await scene.job() == before

    async def test_a_tombstone_wins_over_adoption(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.jobs.remove(QUEUE, ["job"], now=scene.now)
        assert (await scene.claim("job", 1, adopt=scene.new("job"))).verdict is Verdict.GONE
        assert await scene.find("job") is None

    async def test_a_paused_queue_adopts_a_job_without_running_it(self, scene: Scene) -> None:
        await scene.beat()
        await scene.control.pause(QUEUE)
        assert (await scene.claim("job", 1, adopt=scene.new("job"))).verdict is Verdict.PAUSED
        assert (await scene.job()).outbox is Outbox.HELD
        await scene.control.resume(QUEUE)
        assert await scene.unpublished() == [("job", 2)]

    async def test_an_adopted_job_past_its_expiry_does_not_run(self, scene: Scene) -> None:
        await scene.beat()
        answer = await scene.claim("job", 1, adopt=scene.new("job", expires_at=scene.now - 1))
        assert answer.verdict is Verdict.EXPIRED

    async def test_an_adopted_job_holds_its_deduplication_id(self, scene: Scene) -> None:
        await scene.beat()
        await scene.claim("job", 1, adopt=scene.new("job", deduplication=Deduplication(id="key")))
        assert (await scene.add_unique("newcomer")).id == "job"

    # -- fences and numbers ----------------------------------------------------------------------------------------

    async def test_fences_grow_with_every_claim_of_a_job(self, scene: Scene) -> None:
        fences = [(await scene.start("job")).fence]
        for dispatch in range(1, 6):
            await scene.finish("job", Ending.RELEASE, dispatch=dispatch)
            fences.append((await scene.claim("job", dispatch + 1)).fence)
        assert fences == sorted(set(fences))

    async def test_a_fence_is_at_least_the_stores_time(self, scene: Scene) -> None:
        assert (await scene.start("job")).fence >= scene.now

    async def test_fences_grow_when_the_clock_goes_back(self, scene: Scene) -> None:
        first = (await scene.start("job")).fence
        await scene.finish("job", Ending.RELEASE)
        scene.step(-60_000)
        assert (await scene.claim("job", 2)).fence > first

    async def test_a_claim_tells_attempts_failures_and_stalls(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY)
        await scene.claim("job", 2)
        await scene.lose()
        await scene.stalled()
        await scene.beat(OTHER)
        answer = await scene.claim("job", 3, owner=OTHER)
        assert (answer.attempt, answer.failures, answer.stalled) == (3, 1, 1)

    async def test_a_ticket_of_an_earlier_job_of_the_same_id_is_stale(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        earlier = scene.now
        await scene.jobs.remove(QUEUE, ["job"], now=scene.now)
        scene.step(1)
        await scene.add("job")
        (late,) = await scene.claims(Ticket("job", 1, created_at=earlier))
        (own,) = await scene.claims(Ticket("job", 1, created_at=scene.now))
        assert (late.verdict, own.verdict) == (Verdict.STALE, Verdict.CLAIMED)

    # -- batches and races -----------------------------------------------------------------------------------------

    async def test_a_batch_of_tickets_is_answered_one_by_one_in_order(self, scene: Scene) -> None:
        await scene.run("done")
        await scene.enqueue(scene.new("a"), scene.new("b"))
        answers = await scene.claims(
            Ticket("a", 1),
            Ticket("nobody", 1),
            Ticket("done", 1),
            Ticket("a", 1),
            Ticket("b", 1),
            Ticket("new", 1, scene.new("new")),
        )
        assert [(answer.id, answer.verdict) for answer in answers] == [
            ("a", Verdict.CLAIMED),
            ("nobody", Verdict.UNKNOWN),
            ("done", Verdict.FINAL),
            ("a", Verdict.MINE),
            ("b", Verdict.CLAIMED),
            ("new", Verdict.CLAIMED),
        ]

    async def test_of_many_claims_of_one_dispatch_one_is_granted(self, scene: Scene, peer: Store) -> None:
        other = Scene(peer, scene.now)
        boots = [f"boot-{n}" for n in range(16)]
        for boot in boots:
            await scene.beat(boot)
        await scene.add("job")
        sides = (scene, other)
        answers = await asyncio.gather(*(sides[n % 2].claim("job", owner=boot) for n, boot in enumerate(boots)))
        verdicts = sorted(answer.verdict for answer in answers)
        assert verdicts == [Verdict.CLAIMED] + [Verdict.TAKEN] * 15

    async def test_cancel_and_claim_race_to_one_winner(self, scene: Scene, peer: Store) -> None:
        other = Scene(peer, scene.now)
        await scene.beat()
        await scene.enqueue(*(scene.new(str(n)) for n in range(30)))
        answers = await asyncio.gather(
            *(
                call
                for n in range(30)
                for call in (
                    scene.claim(str(n)),
                    other.jobs.cancel(QUEUE, [str(n)], now=scene.now, keep=Keep()),
                )
            )
        )
        states = [(await scene.job(str(n))).state for n in range(30)]
        won = [getattr(answer, "verdict", None) is Verdict.CLAIMED for answer in answers[::2]]
        assert [state is State.ACTIVE for state in states] == won
        assert all(state in (State.ACTIVE, State.CANCELLED) for state in states)

    # -- ALONE -----------------------------------------------------------------------------------------------------

    async def _lost(self, scene: Scene, times: int, *, paused: bool = False) -> None:
        """A job that so many workers have lost, waiting at dispatch `times` + 1; and one more worker, who is alive."""
        await scene.add("job")
        for number in range(times):
            boot = f"lost-{number}"
            await scene.beat(boot)
            assert (await scene.claim("job", number + 1, owner=boot)).verdict is Verdict.CLAIMED
            await scene.lose(boot)
            await scene.stalled(boot, max_stalled=times)
        await scene.beat()
        if paused:
            await scene.control.pause(QUEUE)

    async def _claim_in_company(self, scene: Scene, *tickets: Ticket, alone_from: int) -> list[Verdict]:
        answers = await scene.jobs.claim(
            QUEUE, BOOT, tickets, now=scene.now, keep_expired=Keep(), alone_from=alone_from
        )
        return [answer.verdict for answer in answers]

    async def test_a_job_that_was_lost_too_often_is_not_claimed_in_company(self, scene: Scene) -> None:
        await self._lost(scene, 2)
        before = await scene.job()
        assert await self._claim_in_company(scene, Ticket("job", 3), alone_from=2) == [Verdict.ALONE]
        assert await scene.job() == before
        assert (await scene.claim("job", 3)).verdict is Verdict.CLAIMED

    async def test_a_job_that_was_lost_less_often_is_claimed_in_company(self, scene: Scene) -> None:
        await self._lost(scene, 1)
        assert await self._claim_in_company(scene, Ticket("job", 2), alone_from=2) == [Verdict.CLAIMED]

    async def test_a_job_that_is_to_be_alone_keeps_its_neighbours_in_the_batch_from_nothing(self, scene: Scene) -> None:
        await self._lost(scene, 1)
        await scene.add("other")
        tickets = Ticket("job", 2), Ticket("other", 1)
        assert await self._claim_in_company(scene, *tickets, alone_from=1) == [Verdict.ALONE, Verdict.CLAIMED]

    async def test_a_claim_whose_answer_was_lost_is_mine_whatever_the_job_has_lost(self, scene: Scene) -> None:
        await self._lost(scene, 1)
        await scene.claim("job", 2)
        assert await self._claim_in_company(scene, Ticket("job", 2), alone_from=1) == [Verdict.MINE]

    async def test_a_pause_holds_a_job_that_is_to_be_alone(self, scene: Scene) -> None:
        await self._lost(scene, 1, paused=True)
        assert await self._claim_in_company(scene, Ticket("job", 2), alone_from=1) == [Verdict.PAUSED]

    async def test_a_retry_by_hand_lets_a_job_have_company_again(self, scene: Scene) -> None:
        await self._lost(scene, 1)
        await scene.claim("job", 2)
        await scene.finish("job", Ending.FAILED, dispatch=2)
        await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        assert await self._claim_in_company(scene, Ticket("job", 3), alone_from=1) == [Verdict.CLAIMED]
