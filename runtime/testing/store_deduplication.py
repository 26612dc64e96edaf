"""What a deduplication id promises (protocol 2.13): one job at a time, for as long as its mode says."""

from __future__ import annotations

import asyncio

from ...metadata.contract import Admission, Counts, Ending, Store, Verdict
from ...metadata.job import Deduplication, Keep, State
from .store_scene import MANY, OTHER, QUEUE, Scene, StoreSuite

KEEP = Keep()
BRIEF = Keep(age=1_000)


class DeduplicationConformance(StoreSuite):
    async def test_a_held_deduplication_id_refuses_a_newcomer_and_names_the_holder(self, scene: Scene) -> None:
        await scene.add_unique("holder")
        answer = await scene.add_unique("newcomer")
        assert (answer.id, answer.admission, answer.state, answer.dispatch) == (
            "holder",
            Admission.DEDUPLICATED,
            State.WAITING,
            1,
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
