"""What `StandingClaims` promise: a job that is recorded is claimed in the same step, by who stands for it and hears."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ...metadata.contract import Admission, Ending, Enqueued, Finish, Store, Verdict
from ...metadata.job import Outbox, State
from ...metadata.standing import Handed, StandingClaims
from .store_scene import BOOT, OTHER, QUEUE, Scene, StoreSuite


class Standee:
    """A worker's end: what it was told, by id."""

    def __init__(self, store: Store, boot: str) -> None:
        self.boot = boot
        self.told: list[Handed] = []
        self.deaf = False
        self._claims = store.get(StandingClaims)

    @property
    def ids(self) -> list[str]:
        return [handed.id for handed in self.told]

    async def hear(self, *queues: str) -> None:
        self.hearing = await self._claims.hear(self.boot, queues or (QUEUE,), told=self.told.append, deaf=self._deaf)

    async def stand(self, jobs: int, queue: str = QUEUE) -> bool:
        return await self._claims.stand(queue, self.boot, jobs=jobs)

    async def heard(self) -> list[str]:
        await self.hearing.sync()
        return self.ids

    def _deaf(self) -> None:
        self.deaf = True


class StandingConformance(StoreSuite):
    @pytest_asyncio.fixture
    async def idle(self, store: Store, scene: Scene) -> AsyncIterator[Standee]:
        """A worker that lives, hears, and stands for nothing yet."""
        if StandingClaims not in store.capabilities:
            pytest.skip(f"the store {store.scheme} does not offer StandingClaims")
        standee = Standee(store, BOOT)
        await scene.beat()
        await standee.hear()
        yield standee
        await standee.hearing.close()

    async def test_a_lone_job_is_handed_over_in_the_step_that_records_it(self, scene: Scene, idle: Standee) -> None:
        assert await idle.stand(2)
        made = await scene.add("job", priority=7)
        assert made == Enqueued("job", Admission.CREATED, State.ACTIVE, 1)
        assert await idle.heard() == ["job"]
        (handed,) = idle.told
        assert (handed.queue, handed.payload) == (QUEUE, b"payload of job")
        job = await scene.job()
        assert (job.state, job.owner, job.dispatch, job.attempts) == (State.ACTIVE, BOOT, 1, 1)
        assert (job.fence, job.claimed_at, job.outbox) == (handed.fence, scene.now, Outbox.NONE)
        assert handed.fence >= scene.now

    async def test_what_was_handed_over_ends_like_any_run(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(1)
        await scene.add()
        ended = await scene.finish(result=b"7", history=b"run")
        assert (ended.finish, ended.state) == (Finish.DONE, State.COMPLETED)
        assert (await scene.job()).result == b"7"

    async def test_a_run_that_was_handed_over_may_be_retried_by_a_ticket(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(2)
        await scene.add()
        assert (await scene.finish(ending=Ending.RETRY)).state is State.WAITING
        again = await scene.claim(dispatch=2)
        assert (again.verdict, again.attempt, again.failures) == (Verdict.CLAIMED, 2, 1)
        assert await idle.heard() == ["job"]

    async def test_a_repeated_enqueue_hands_over_nothing(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        first = await scene.add()
        assert await scene.add() == first
        assert await idle.heard() == ["job"]

    async def test_a_ticket_of_what_was_handed_over_is_mine_or_taken(self, scene: Scene, idle: Standee) -> None:
        await scene.beat(OTHER)
        await idle.stand(1)
        await scene.add()
        assert (await scene.claim(owner=OTHER)).verdict is Verdict.TAKEN
        mine = await scene.claim()
        assert await idle.heard() == ["job"]
        assert (mine.verdict, mine.fence, mine.attempt) == (Verdict.MINE, idle.told[0].fence, 1)

    async def test_no_more_is_handed_over_than_was_stood_for(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(2)
        made = [await scene.add(id) for id in "abc"]
        assert [one.state for one in made] == [State.ACTIVE, State.ACTIVE, State.WAITING]
        assert await idle.heard() == ["a", "b"]

    async def test_a_claim_stands_in_place_of_the_one_before(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        await idle.stand(1)
        assert [(await scene.add(id)).state for id in "ab"] == [State.ACTIVE, State.WAITING]

    async def test_a_claim_for_none_stands_no_more(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        await idle.stand(0)
        assert (await scene.add()).state is State.WAITING
        assert await idle.heard() == []

    async def test_jobs_that_come_together_wait_for_their_tickets(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        made = await scene.enqueue(scene.new("a"), scene.new("b"))
        assert [one.state for one in made] == [State.WAITING, State.WAITING]

    async def test_nothing_is_handed_over_before_what_waits(self, scene: Scene, idle: Standee) -> None:
        await scene.add("first")
        await idle.stand(5)
        assert (await scene.add("second")).state is State.WAITING
        await scene.claim("first")
        await scene.claim("second")
        assert (await scene.add("third")).state is State.ACTIVE

    async def test_delayed_jobs_are_not_handed_over(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        assert (await scene.add(run_at=scene.now + 1_000)).state is State.DELAYED

    async def test_what_has_expired_is_left_to_its_claim(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        assert (await scene.add(expires_at=scene.now)).state is State.WAITING

    async def test_a_paused_queue_hands_over_nothing(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        await scene.control.pause(QUEUE)
        assert (await scene.add("a")).state is State.WAITING
        await scene.claim("a")
        await scene.control.resume(QUEUE)
        await scene.unpublished()
        await scene.claim("a", 2)
        assert (await scene.add("b")).state is State.ACTIVE

    async def test_queues_are_stood_in_one_by_one(self, scene: Scene, idle: Standee) -> None:
        await scene.beat(queue="reports")
        await idle.stand(5)
        assert (await scene.add("a", queue="reports")).state is State.WAITING
        assert (await scene.add("b")).state is State.ACTIVE

    async def test_who_does_not_hear_is_handed_nothing(self, scene: Scene, idle: Standee) -> None:
        await scene.beat(OTHER)
        await Standee(scene.store, OTHER).stand(5)
        assert (await scene.add()).state is State.WAITING
        assert await idle.heard() == []

    async def test_another_boot_gets_it_where_the_first_does_not_hear(self, scene: Scene, idle: Standee) -> None:
        await scene.beat(OTHER)
        other = Standee(scene.store, OTHER)
        await other.stand(9)
        await idle.stand(1)
        assert (await scene.add()).state is State.ACTIVE
        assert await idle.heard() == ["job"]

    async def test_who_may_be_handed_the_most_is_next(self, scene: Scene, idle: Standee) -> None:
        await scene.beat(OTHER)
        other = Standee(scene.store, OTHER)
        await other.hear()
        try:
            await idle.stand(2)
            await other.stand(4)
            for id in "abcdef":
                assert (await scene.add(id)).state is State.ACTIVE
            assert await other.heard() != []
            assert other.ids[:2] == ["a", "b"]
            assert (len(await idle.heard()), len(other.ids)) == (2, 4)
        finally:
            await other.hearing.close()

    async def test_a_boot_without_a_row_or_declared_dead_does_not_stand(self, scene: Scene, idle: Standee) -> None:
        assert not await Standee(scene.store, "unheard").stand(1)
        await idle.stand(5)
        await scene.lose()
        assert not await idle.stand(5)
        assert (await scene.add()).state is State.WAITING

    async def test_a_boot_that_has_left_does_not_stand(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(5)
        await scene.workers.leave(BOOT, [QUEUE])
        assert (await scene.add()).state is State.WAITING

    async def test_a_row_that_was_handed_a_job_stays_when_its_boot_leaves(self, scene: Scene, idle: Standee) -> None:
        await idle.stand(1)
        await scene.add()
        await scene.workers.leave(BOOT, [QUEUE])
        assert await scene.lose()
        assert [(one.id, one.dispatch) for one in (await scene.stalled()).ready] == [("job", 2)]

    async def test_an_id_that_was_removed_may_be_handed_over_anew(self, scene: Scene, idle: Standee) -> None:
        await scene.run()
        await scene.jobs.remove(QUEUE, ["job"], now=scene.now)
        await idle.stand(1)
        assert (await scene.add()).state is State.ACTIVE
        assert await idle.heard() == ["job"]
