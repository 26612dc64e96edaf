"""What `finish` and `progress` promise (protocol T7, T8; D2)."""

from __future__ import annotations

import pytest

from ...metadata.contract import (
    MAX_HISTORY,
    Ending,
    Finish,
    Outcome,
)
from ...metadata.job import Outbox, State
from .store_scene import BOOT, GRACE, OTHER, QUEUE, Scene, StoreSuite

ENDS = [
    (Ending.COMPLETED, State.COMPLETED),
    (Ending.FAILED, State.FAILED),
    (Ending.CANCELLED, State.CANCELLED),
]
GOES_ON = [Ending.RETRY, Ending.RELEASE, Ending.PARK]


class FinishConformance(StoreSuite):
    @pytest.mark.parametrize(("ending", "state"), ENDS)
    async def test_a_run_ends_in_the_final_state_of_its_outcome(
        self, scene: Scene, ending: Ending, state: State
    ) -> None:
        await scene.start("job")
        scene.step(3)
        answer = await scene.finish("job", ending, result=b"\x00result", error=b"\xfferror", history=b"entry")
        job = await scene.job()
        assert (answer.id, answer.finish, answer.state, answer.dispatch) == ("job", Finish.DONE, state, 1)
        assert (job.state, job.finished_at, job.owner) == (state, scene.now, None)
        assert (job.result, job.error, job.history) == (b"\x00result", b"\xfferror", (b"entry",))

    async def test_a_failed_run_counts_a_failure(self, scene: Scene) -> None:
        await scene.run("job", Ending.FAILED)
        assert (await scene.job()).failures == 1

    async def test_a_completed_run_counts_no_failure(self, scene: Scene) -> None:
        await scene.run("job")
        assert (await scene.job()).failures == 0

    @pytest.mark.parametrize("ending", GOES_ON)
    async def test_a_run_that_goes_on_now_waits_at_the_next_dispatch(self, scene: Scene, ending: Ending) -> None:
        await scene.start("job")
        answer = await scene.finish("job", ending)
        job = await scene.job()
        assert (answer.finish, answer.state, answer.dispatch) == (Finish.DONE, State.WAITING, 2)
        assert (job.state, job.dispatch, job.outbox, job.owner) == (State.WAITING, 2, Outbox.DUE, None)
        scene.step(GRACE - 1)
        assert await scene.unpublished() == []
        scene.step(1)
        assert await scene.unpublished() == [("job", 2)]

    @pytest.mark.parametrize("ending", GOES_ON)
    async def test_a_run_that_goes_on_later_is_delayed(self, scene: Scene, ending: Ending) -> None:
        await scene.start("job")
        answer = await scene.finish("job", ending, run_at=scene.now + 5_000)
        job = await scene.job()
        assert (answer.finish, answer.state, answer.dispatch) == (Finish.DONE, State.DELAYED, 1)
        assert (job.state, job.run_at, job.owner) == (State.DELAYED, scene.now + 5_000, None)
        scene.step(5_000)
        assert await scene.due() == [("job", 2)]

    async def test_a_run_that_goes_on_at_a_past_time_waits(self, scene: Scene) -> None:
        await scene.start("job")
        assert (await scene.finish("job", Ending.RETRY, run_at=scene.now)).state is State.WAITING

    async def test_a_retry_uses_up_a_retry_and_a_release_or_park_does_not(self, scene: Scene) -> None:
        await scene.start("job")
        for dispatch, ending in enumerate([Ending.RELEASE, Ending.PARK, Ending.RETRY], start=1):
            await scene.finish("job", ending, dispatch=dispatch)
            await scene.claim("job", dispatch + 1)
        job = await scene.job()
        assert (job.failures, job.attempts) == (1, 4)

    async def test_parking_notes_the_time_of_the_first_parking_and_claims_tell_it(self, scene: Scene) -> None:
        await scene.start("job")
        parked_at = scene.now
        await scene.finish("job", Ending.PARK)
        scene.step(5_000)
        await scene.claim("job", 2)
        await scene.finish("job", Ending.PARK, dispatch=2)
        assert (await scene.claim("job", 3)).parked_at == parked_at

    async def test_a_release_is_no_parking(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RELEASE)
        assert (await scene.claim("job", 2)).parked_at is None

    async def test_the_newest_entries_of_the_history_are_kept(self, scene: Scene) -> None:
        await scene.start("job")
        for dispatch in range(1, MAX_HISTORY + 4):
            await scene.finish("job", Ending.RETRY, dispatch=dispatch, history=b"%d" % dispatch)
            await scene.claim("job", dispatch + 1)
        expected = tuple(b"%d" % dispatch for dispatch in range(4, MAX_HISTORY + 4))
        assert (await scene.job()).history == expected

    async def test_a_finish_without_history_adds_none(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY, history=b"one")
        await scene.claim("job", 2)
        await scene.finish("job", dispatch=2)
        assert (await scene.job()).history == (b"one",)

    # -- the fence -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("ending", list(Ending))
    async def test_a_repeated_finish_is_recorded_and_changes_nothing(self, scene: Scene, ending: Ending) -> None:
        await scene.start("job")
        first = await scene.finish("job", ending, history=b"entry")
        before = await scene.job()
        scene.step(10)
        again = await scene.finish("job", ending, history=b"entry")
        assert (again.finish, again.state, again.dispatch) == (Finish.RECORDED, first.state, first.dispatch)
        assert await scene.job() == before

    async def test_a_repeated_finish_is_recorded_after_the_next_claim(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", Ending.RETRY)
        await scene.claim("job", 2)
        before = await scene.job()
        answer = await scene.finish("job", Ending.RETRY)
        assert (answer.finish, answer.state, answer.dispatch) == (Finish.RECORDED, State.ACTIVE, 2)
        assert await scene.job() == before

    async def test_a_finish_by_another_owner_is_refused_and_changes_nothing(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.beat(OTHER)
        before = await scene.job()
        answer = await scene.finish("job", owner=OTHER)
        assert (answer.finish, answer.state, answer.dispatch) == (Finish.REFUSED, State.ACTIVE, 1)
        assert await scene.job() == before

    @pytest.mark.parametrize("dispatch", [0, 2])
    async def test_a_finish_of_another_dispatch_is_refused_and_changes_nothing(
        self, scene: Scene, dispatch: int
    ) -> None:
        await scene.start("job")
        before = await scene.job()
        assert (await scene.finish("job", dispatch=dispatch)).finish is Finish.REFUSED
        assert await scene.job() == before

    async def test_a_finish_of_a_waiting_job_is_refused(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        before = await scene.job()
        assert (await scene.finish("job")).finish is Finish.REFUSED
        assert await scene.job() == before

    async def test_a_finish_of_a_final_job_by_another_owner_is_refused(self, scene: Scene) -> None:
        await scene.run("job")
        before = await scene.job()
        assert (await scene.finish("job", Ending.FAILED, owner=OTHER)).finish is Finish.REFUSED
        assert await scene.job() == before

    async def test_a_finish_of_an_unknown_job_is_refused_and_records_nothing(self, scene: Scene) -> None:
        await scene.beat()
        answer = await scene.finish("nobody")
        assert (answer.finish, answer.state, answer.dispatch) == (Finish.REFUSED, None, 0)
        assert await scene.find("nobody") is None

    async def test_a_dead_boots_finish_is_refused_before_its_jobs_are_taken(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        before = await scene.job()
        assert (await scene.finish("job")).finish is Finish.REFUSED
        assert await scene.job() == before

    async def test_a_dead_boots_finish_is_refused_after_its_jobs_are_taken(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        await scene.stalled()
        before = await scene.job()
        answer = await scene.finish("job")
        assert (answer.finish, answer.state, answer.dispatch) == (Finish.REFUSED, State.WAITING, 2)
        assert await scene.job() == before

    async def test_a_zombies_finish_is_refused_while_its_successor_runs(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        await scene.stalled()
        await scene.beat(OTHER)
        await scene.claim("job", 2, owner=OTHER)
        before = await scene.job()
        assert (await scene.finish("job")).finish is Finish.REFUSED
        assert await scene.job() == before
        assert (await scene.finish("job", dispatch=2, owner=OTHER)).finish is Finish.DONE

    async def test_a_finish_recorded_before_its_boot_died_is_still_recorded(self, scene: Scene) -> None:
        await scene.run("job")
        await scene.lose()
        assert (await scene.finish("job")).finish is Finish.RECORDED

    async def test_a_refused_finish_is_told_who_runs_the_job_now_and_who_has_ended_it(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        assert (await scene.finish("job")).owner is None  # nobody else has it yet
        await scene.stalled()
        assert (await scene.finish("job")).owner is None
        await scene.beat(OTHER)
        await scene.claim("job", 2, owner=OTHER)
        assert (await scene.finish("job")).owner == OTHER
        assert (await scene.finish("job", dispatch=2, owner=OTHER)).owner is None
        assert (await scene.finish("job")).owner == OTHER
        assert (await scene.finish("job", dispatch=2, owner=OTHER)).owner is None

    async def test_a_refused_outcome_affects_only_itself(self, scene: Scene) -> None:
        await scene.start("good")
        await scene.start("bad")
        await scene.start("last")
        outcomes = [
            Outcome(id="good", dispatch=1, owner=BOOT, ending=Ending.COMPLETED),
            Outcome(id="bad", dispatch=7, owner=BOOT, ending=Ending.COMPLETED),
            Outcome(id="nobody", dispatch=1, owner=BOOT, ending=Ending.COMPLETED),
            Outcome(id="good", dispatch=1, owner=BOOT, ending=Ending.COMPLETED),
            Outcome(id="last", dispatch=1, owner=BOOT, ending=Ending.RETRY),
        ]
        answers = await scene.jobs.finish(QUEUE, outcomes, now=scene.now, grace=GRACE)
        assert [(answer.id, answer.finish) for answer in answers] == [
            ("good", Finish.DONE),
            ("bad", Finish.REFUSED),
            ("nobody", Finish.REFUSED),
            ("good", Finish.RECORDED),
            ("last", Finish.DONE),
        ]
        assert (await scene.job("bad")).state is State.ACTIVE

    # -- progress --------------------------------------------------------------------------------------------------

    async def test_progress_is_kept_as_it_was_sent_and_replaced_by_the_next(self, scene: Scene) -> None:
        await scene.start("job")
        for value in (b"\x00\xff", b"", b"half"):
            assert await scene.jobs.progress(QUEUE, "job", dispatch=1, owner=BOOT, value=value)
            assert await scene.inspection.progress(QUEUE, "job") == value

    async def test_a_job_without_progress_has_none(self, scene: Scene) -> None:
        await scene.add("job")
        assert await scene.inspection.progress(QUEUE, "job") is None
        assert await scene.inspection.progress(QUEUE, "nobody") is None

    @pytest.mark.parametrize(("dispatch", "owner"), [(0, BOOT), (2, BOOT), (1, OTHER)])
    async def test_progress_without_the_fence_is_refused(self, scene: Scene, dispatch: int, owner: str) -> None:
        await scene.start("job")
        await scene.jobs.progress(QUEUE, "job", dispatch=1, owner=BOOT, value=b"mine")
        assert not await scene.jobs.progress(QUEUE, "job", dispatch=dispatch, owner=owner, value=b"theirs")
        assert await scene.inspection.progress(QUEUE, "job") == b"mine"

    async def test_progress_of_a_job_that_does_not_run_is_refused(self, scene: Scene) -> None:
        await scene.run("done")
        assert not await scene.jobs.progress(QUEUE, "done", dispatch=1, owner=BOOT, value=b"late")
        assert not await scene.jobs.progress(QUEUE, "nobody", dispatch=1, owner=BOOT, value=b"late")

    async def test_progress_of_a_dead_boot_is_refused(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        assert not await scene.jobs.progress(QUEUE, "job", dispatch=1, owner=BOOT, value=b"late")
