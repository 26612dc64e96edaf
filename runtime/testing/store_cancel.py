"""What `cancel`, `retry` and `remove` promise (protocol T12-T14; 2.11)."""

from __future__ import annotations

import asyncio

import pytest

from ...metadata.contract import (
    Cancel,
    Ending,
    Finish,
    Jobs,
    Ready,
    Removal,
    Store,
    Verdict,
)
from ...metadata.job import Keep, Outbox, State
from ..clock import SystemClock
from .store_scene import BOOT, DAY, GRACE, OTHER, QUEUE, Scene, StoreSuite

ENDS = [
    (Ending.COMPLETED, State.COMPLETED),
    (Ending.FAILED, State.FAILED),
    (Ending.CANCELLED, State.CANCELLED),
]
GOES_ON = [Ending.RETRY, Ending.RELEASE, Ending.PARK]


class CancelConformance(StoreSuite):
    # -- cancel ----------------------------------------------------------------------------------------------------

    async def _cancel(self, scene: Scene, id: str = "job") -> tuple[Cancel, State | None, str | None]:
        (answer,) = await scene.jobs.cancel(QUEUE, [id], now=scene.now, keep=Keep())
        assert answer.id == id
        return answer.cancel, answer.state, answer.owner

    async def test_a_waiting_job_is_cancelled(self, scene: Scene) -> None:
        await scene.add("job")
        scene.step(3)
        assert await self._cancel(scene) == (Cancel.CANCELLED, State.CANCELLED, None)
        job = await scene.job()
        assert (job.state, job.finished_at, job.outbox) == (State.CANCELLED, scene.now, Outbox.NONE)
        scene.step(GRACE)
        assert await scene.unpublished() == []

    async def test_a_sent_job_is_cancelled(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.confirm("job")
        assert await self._cancel(scene) == (Cancel.CANCELLED, State.CANCELLED, None)
        assert await scene.overtaken(sent_before=scene.now + 1) == []

    async def test_a_held_job_is_cancelled(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job")
        await scene.control.pause(QUEUE)
        await scene.claim("job")
        assert await self._cancel(scene) == (Cancel.CANCELLED, State.CANCELLED, None)
        await scene.control.resume(QUEUE)
        assert await scene.unpublished() == []

    async def test_a_delayed_job_is_cancelled(self, scene: Scene) -> None:
        await scene.add("job", run_at=scene.now + 5_000)
        assert await self._cancel(scene) == (Cancel.CANCELLED, State.CANCELLED, None)
        scene.step(5_000)
        assert await scene.due() == []

    async def test_a_running_jobs_cancellation_is_requested_of_its_owner(self, scene: Scene) -> None:
        await scene.start("job")
        assert await self._cancel(scene) == (Cancel.REQUESTED, State.ACTIVE, BOOT)
        job = await scene.job()
        assert (job.state, job.cancel_requested) == (State.ACTIVE, True)

    async def test_a_requested_cancellation_travels_in_the_owners_heartbeats(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.start("another")
        await self._cancel(scene)
        await scene.beat(OTHER)
        assert list((await scene.beat()).cancels) == [(QUEUE, "job")]
        assert list((await scene.beat()).cancels) == [(QUEUE, "job")]
        assert list((await scene.beat(OTHER)).cancels) == []

    async def test_a_finished_jobs_cancellation_no_longer_travels(self, scene: Scene) -> None:
        await scene.start("job")
        await self._cancel(scene)
        await scene.finish("job", Ending.CANCELLED)
        assert list((await scene.beat()).cancels) == []

    async def test_a_final_job_is_not_cancelled(self, scene: Scene) -> None:
        await scene.run("job")
        before = await scene.job()
        assert await self._cancel(scene) == (Cancel.FINAL, State.COMPLETED, None)
        assert await scene.job() == before

    async def test_cancelling_an_unknown_job_is_answered_unknown(self, scene: Scene) -> None:
        assert await self._cancel(scene, "nobody") == (Cancel.UNKNOWN, None, None)

    async def test_a_repeated_cancel_is_answered_the_same(self, scene: Scene) -> None:
        await scene.add("waiting")
        await scene.start("running")
        for id in ("waiting", "running"):
            first = await self._cancel(scene, id)
            before = await scene.job(id)
            scene.step(10)
            assert await self._cancel(scene, id) == first
            assert await scene.job(id) == before

    @pytest.mark.parametrize("ending", GOES_ON)
    async def test_what_would_go_on_ends_as_cancelled_where_that_was_asked_for(
        self, scene: Scene, ending: Ending
    ) -> None:
        await scene.start("job")
        await self._cancel(scene)
        answer = await scene.finish("job", ending, run_at=scene.now + 5_000)
        assert (answer.finish, answer.state) == (Finish.DONE, State.CANCELLED)
        assert (await scene.job()).finished_at == scene.now
        assert (await scene.finish("job", ending, run_at=scene.now + 5_000)).finish is Finish.RECORDED

    @pytest.mark.parametrize(("ending", "state"), ENDS)
    async def test_a_run_that_ends_before_its_cancellation_arrives_ends_as_it_says(
        self, scene: Scene, ending: Ending, state: State
    ) -> None:
        await scene.start("job")
        await self._cancel(scene)
        assert (await scene.finish("job", ending)).state is state

    async def test_a_cancelled_record_is_kept_as_the_cancel_says(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.jobs.cancel(QUEUE, ["job"], now=scene.now, keep=Keep(age=1_000))
        scene.step(1_001)
        await scene.prune()
        assert await scene.find("job") is None

    async def test_cancel_and_finish_race_to_one_winner_and_the_loser_is_told(self, scene: Scene, peer: Store) -> None:
        ids = [str(n) for n in range(30)]
        for id in ids:
            await scene.start(id)
        cancels, finishes = await asyncio.gather(
            asyncio.gather(*(peer.get(Jobs).cancel(QUEUE, [id], now=scene.now, keep=Keep()) for id in ids)),
            asyncio.gather(*(scene.finish(id) for id in ids)),
        )
        assert all(finished.finish is Finish.DONE for finished in finishes)
        assert {job and job.state for job in await scene.inspection.get(QUEUE, ids)} == {State.COMPLETED}
        assert {answer.cancel for (answer,) in cancels} <= {Cancel.REQUESTED, Cancel.FINAL}

    # -- retry and remove ------------------------------------------------------------------------------------------

    async def test_a_final_job_is_retried_at_the_next_dispatch(self, scene: Scene) -> None:
        await scene.start("job", payload=b"\x00again", priority=2)
        await scene.finish("job", Ending.FAILED, error=b"why", result=b"what")
        (answer,) = await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        job = await scene.job()
        assert answer == Ready(QUEUE, "job", 2, 2, b"\x00again")
        assert (job.state, job.dispatch, job.outbox) == (State.WAITING, 2, Outbox.DUE)
        assert (job.failures, job.stalled, job.error, job.result, job.finished_at) == (0, 0, None, None, None)
        scene.step(GRACE)
        assert await scene.unpublished() == [("job", 2)]
        assert (await scene.claim("job", 2)).verdict is Verdict.CLAIMED

    async def test_a_retried_job_starts_with_no_stalls(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        await scene.stalled(max_stalled=1)
        await scene.beat(OTHER)
        await scene.claim("job", 2, owner=OTHER)
        await scene.finish("job", Ending.FAILED, dispatch=2, owner=OTHER)
        await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        assert (await scene.claim("job", 3, owner=OTHER)).stalled == 0

    async def test_a_retried_job_is_not_cancelled_by_an_old_request(self, scene: Scene) -> None:
        await scene.start("job")
        await self._cancel(scene)
        await scene.finish("job", Ending.CANCELLED)
        await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        await scene.claim("job", 2)
        assert list((await scene.beat()).cancels) == []
        assert (await scene.finish("job", Ending.RETRY, dispatch=2)).state is State.WAITING

    async def test_a_retried_job_expires_no_more(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("job", expires_at=scene.now + 10)
        scene.step(11)
        assert (await scene.claim("job")).verdict is Verdict.EXPIRED
        await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        assert (await scene.claim("job", 2)).verdict is Verdict.CLAIMED

    async def test_a_retried_job_is_not_pruned(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.finish("job", keep=Keep(age=1_000, count=1))
        await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        scene.step(10_000)
        await scene.prune()
        assert (await scene.job()).state is State.WAITING

    async def test_a_cancelled_job_that_was_delayed_runs_when_it_is_retried_not_when_it_was_due(
        self, scene: Scene
    ) -> None:
        real = SystemClock().now()
        await scene.add("job", run_at=real + DAY)
        await scene.jobs.cancel(QUEUE, ["job"], now=scene.now, keep=Keep())
        await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        assert (await scene.job()).run_at == scene.now
        scene.step(GRACE)
        assert await scene.unpublished() == [("job", 1)]

    async def test_what_is_not_final_is_left_alone_by_retry_and_its_state_told(self, scene: Scene) -> None:
        await scene.add("waiting")
        await scene.add("delayed", run_at=scene.now + 5_000)
        await scene.start("active")
        before = await scene.inspection.get(QUEUE, ["waiting", "delayed", "active"])
        answers = await scene.jobs.retry(QUEUE, ["waiting", "delayed", "active", "nobody"], now=scene.now, grace=GRACE)
        assert list(answers) == [State.WAITING, State.DELAYED, State.ACTIVE, None]
        assert await scene.inspection.get(QUEUE, ["waiting", "delayed", "active"]) == before

    async def test_what_does_not_run_is_removed(self, scene: Scene) -> None:
        await scene.add("waiting")
        await scene.add("delayed", run_at=scene.now + 5_000)
        await scene.run("done")
        ids = ["waiting", "delayed", "done"]
        assert list(await scene.jobs.remove(QUEUE, ids, now=scene.now)) == [Removal.REMOVED] * 3
        assert list(await scene.inspection.get(QUEUE, ids)) == [None] * 3
        scene.step(10_000)
        assert await scene.unpublished() == []
        assert await scene.due() == []

    async def test_a_running_job_is_not_removed(self, scene: Scene) -> None:
        await scene.start("job")
        before = await scene.job()
        assert list(await scene.jobs.remove(QUEUE, ["job"], now=scene.now)) == [Removal.ACTIVE]
        assert await scene.job() == before

    async def test_removing_an_unknown_job_is_answered_unknown(self, scene: Scene) -> None:
        assert list(await scene.jobs.remove(QUEUE, ["nobody"], now=scene.now)) == [Removal.UNKNOWN]
