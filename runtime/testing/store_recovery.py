"""What Workers promise (protocol T10; 2.6): heartbeats, deaths, recovery."""

from __future__ import annotations

import asyncio

from ...metadata.contract import Finish, Store, Verdict
from ...metadata.job import Keep, Outbox, State
from .store_scene import BOOT, DAY, GRACE, OTHER, QUEUE, Scene, StoreSuite


class RecoveryConformance(StoreSuite):
    # -- heartbeats ------------------------------------------------------------------------------------------------

    async def _rows(self, scene: Scene, *queues: str) -> dict[str, tuple[int, bytes, int]]:
        rows = await scene.workers.workers(queues or (QUEUE,))
        return {f"{row.queue}/{row.boot}": (row.beat, row.info, row.active) for row in rows}

    async def test_the_first_heartbeat_makes_a_row(self, scene: Scene) -> None:
        answer = await scene.beat(info=b"\x00info\xff")
        assert (answer.alive, list(answer.cancels), list(answer.paused)) == (True, [], [])
        ((_, info, active),) = (await self._rows(scene)).values()
        assert (info, active) == (b"\x00info\xff", 0)

    async def test_every_heartbeat_changes_the_counter(self, scene: Scene) -> None:
        beats = []
        for _ in range(5):
            await scene.beat()
            beats.append((await self._rows(scene))[f"{QUEUE}/{BOOT}"][0])
        assert beats == sorted(set(beats))

    async def test_the_latest_heartbeats_info_is_told(self, scene: Scene) -> None:
        await scene.beat(info=b"old")
        await scene.beat(info=b"new")
        assert (await self._rows(scene))[f"{QUEUE}/{BOOT}"][1] == b"new"

    async def test_a_heartbeat_makes_a_row_in_each_of_its_queues(self, scene: Scene) -> None:
        scene.touched.append("reports")
        await scene.workers.heartbeat(BOOT, [QUEUE, "reports"], info=b"", now=scene.now)
        await scene.beat(OTHER)
        assert set(await self._rows(scene, QUEUE, "reports")) == {
            f"{QUEUE}/{BOOT}",
            f"{QUEUE}/{OTHER}",
            f"reports/{BOOT}",
        }
        assert set(await self._rows(scene, "reports")) == {f"reports/{BOOT}"}

    async def test_a_row_tells_how_many_jobs_its_boot_holds(self, scene: Scene) -> None:
        await scene.start("a")
        await scene.start("b")
        await scene.start("c")
        await scene.finish("c")
        assert (await self._rows(scene))[f"{QUEUE}/{BOOT}"][2] == 2

    async def test_a_heartbeat_tells_which_of_its_queues_are_paused(self, scene: Scene) -> None:
        scene.touched.append("reports")
        await scene.control.pause("reports")
        answer = await scene.workers.heartbeat(BOOT, [QUEUE, "reports"], info=b"", now=scene.now)
        assert list(answer.paused) == ["reports"]

    async def test_an_orderly_leave_drops_the_rows(self, scene: Scene) -> None:
        scene.touched.append("reports")
        await scene.workers.heartbeat(BOOT, [QUEUE, "reports"], info=b"", now=scene.now)
        await scene.workers.leave(BOOT, [QUEUE, "reports"])
        assert await self._rows(scene, QUEUE, "reports") == {}

    async def test_a_leave_keeps_the_row_that_holds_jobs(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.workers.leave(BOOT, [QUEUE])
        assert (await self._rows(scene))[f"{QUEUE}/{BOOT}"][2] == 1
        assert await scene.lose()
        assert [row.id for row in (await scene.stalled()).ready] == ["job"]

    async def test_a_boot_that_left_claims_nothing(self, scene: Scene) -> None:
        await scene.beat()
        await scene.workers.leave(BOOT, [QUEUE])
        await scene.add("job")
        assert (await scene.claim("job")).verdict is Verdict.DEAD

    async def test_leaving_without_a_row_is_harmless(self, scene: Scene) -> None:
        await scene.workers.leave("nobody", [QUEUE])
        assert await self._rows(scene) == {}

    # -- deaths ----------------------------------------------------------------------------------------------------

    async def test_a_boot_whose_counter_stood_still_is_declared_dead(self, scene: Scene) -> None:
        await scene.beat()
        assert await scene.lose()
        assert not (await scene.beat()).alive

    async def test_a_boot_whose_counter_moved_is_not_declared_dead(self, scene: Scene) -> None:
        await scene.beat()
        ((seen, _, _),) = (await self._rows(scene)).values()
        await scene.beat()
        assert not await scene.workers.declare_dead(QUEUE, BOOT, beat=seen, now=scene.now)
        assert (await scene.beat()).alive
        await scene.add("job")
        assert (await scene.claim("job")).verdict is Verdict.CLAIMED

    async def test_a_dead_boot_is_declared_dead_again(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        assert await scene.workers.declare_dead(QUEUE, BOOT, beat=-1, now=scene.now)
        await scene.stalled()
        assert await scene.workers.declare_dead(QUEUE, BOOT, beat=-1, now=scene.now)

    async def test_a_boot_without_a_row_is_not_declared_dead(self, scene: Scene) -> None:
        assert not await scene.workers.declare_dead(QUEUE, "nobody", beat=0, now=scene.now)
        assert (await scene.beat("nobody")).alive

    async def test_a_dead_boots_heartbeat_does_not_bring_back_its_row(self, scene: Scene) -> None:
        await scene.beat()
        await scene.lose()
        await scene.stalled()
        assert not (await scene.beat()).alive
        assert await self._rows(scene) == {}

    async def test_a_death_is_remembered_for_a_day(self, scene: Scene) -> None:
        await scene.beat()
        await scene.lose()
        await scene.stalled()
        scene.step(DAY)
        await scene.beat(OTHER)
        await scene.lose(OTHER)
        await scene.prune()
        assert not (await scene.beat()).alive
        await scene.add("job")
        assert (await scene.claim("job")).verdict is Verdict.DEAD

    async def test_a_boot_is_dead_only_in_the_queue_that_declared_it(self, scene: Scene) -> None:
        scene.touched.append("reports")
        await scene.workers.heartbeat(BOOT, [QUEUE, "reports"], info=b"", now=scene.now)
        await scene.lose()
        assert (await scene.beat(queue="reports")).alive
        assert not (await scene.workers.heartbeat(BOOT, [QUEUE, "reports"], info=b"", now=scene.now)).alive

    async def test_another_boot_is_not_touched_by_a_death(self, scene: Scene) -> None:
        await scene.start("mine")
        await scene.start("theirs", owner=OTHER)
        await scene.lose()
        await scene.stalled()
        assert (await scene.beat(OTHER)).alive
        assert (await scene.finish("theirs", owner=OTHER)).finish is Finish.DONE

    # -- recovery --------------------------------------------------------------------------------------------------

    async def test_a_living_boots_jobs_are_not_taken(self, scene: Scene) -> None:
        await scene.start("job")
        before = await scene.job()
        taken = await scene.stalled()
        assert (list(taken.ready), list(taken.failed), taken.more) == ([], [], False)
        assert await scene.job() == before
        assert set(await self._rows(scene)) == {f"{QUEUE}/{BOOT}"}

    async def test_a_dead_boots_job_waits_at_the_next_dispatch(self, scene: Scene) -> None:
        await scene.start("job", payload=b"\xff", priority=3)
        await scene.lose()
        (row,) = (await scene.stalled()).ready
        job = await scene.job()
        assert (row.queue, row.id, row.dispatch, row.priority, row.payload) == (QUEUE, "job", 2, 3, b"\xff")
        assert (job.state, job.dispatch, job.stalled, job.failures) == (State.WAITING, 2, 1, 0)
        assert (job.owner, job.outbox, job.history) == (None, Outbox.DUE, (b"stalled",))

    async def test_a_recovered_job_is_sent_by_the_relay_a_grace_later(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        await scene.stalled()
        scene.step(GRACE - 1)
        assert await scene.unpublished() == []
        scene.step(1)
        assert await scene.unpublished() == [("job", 2)]

    async def test_a_job_that_stalled_too_often_fails(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.lose()
        await scene.stalled(max_stalled=1)
        await scene.beat(OTHER)
        await scene.claim("job", 2, owner=OTHER)
        await scene.lose(OTHER)
        scene.step(3)
        taken = await scene.stalled(OTHER, max_stalled=1)
        job = await scene.job()
        assert (list(taken.ready), list(taken.failed)) == ([], ["job"])
        assert (job.state, job.error, job.finished_at, job.owner) == (State.FAILED, b"lost", scene.now, None)
        assert job.history == (b"stalled", b"stalled")

    async def test_a_job_whose_cancellation_was_asked_for_is_cancelled_by_recovery(self, scene: Scene) -> None:
        await scene.start("job")
        await scene.jobs.cancel(QUEUE, ["job"], now=scene.now, keep=Keep())
        await scene.lose()
        taken = await scene.stalled()
        assert (list(taken.ready), list(taken.failed)) == ([], [])
        assert (await scene.job()).state is State.CANCELLED

    async def test_recovery_takes_up_to_its_limit_and_says_that_there_is_more(self, scene: Scene) -> None:
        ids = [str(n) for n in range(5)]
        for id in ids:
            await scene.start(id)
        await scene.lose()
        first = await scene.stalled(limit=2)
        assert (len(first.ready), first.more) == (2, True)
        second = await scene.stalled(limit=2)
        assert (len(second.ready), second.more) == (2, True)
        last = await scene.stalled(limit=2)
        taken = [row.id for part in (first, second, last) for row in part.ready]
        assert (sorted(taken), last.more) == (ids, False)

    async def test_the_row_of_a_dead_boot_stays_until_its_last_job_is_taken(self, scene: Scene) -> None:
        await scene.start("a")
        await scene.start("b")
        await scene.lose()
        await scene.stalled(limit=1)
        assert set(await self._rows(scene)) == {f"{QUEUE}/{BOOT}"}
        await scene.stalled(limit=10)
        assert await self._rows(scene) == {}

    async def test_the_row_of_a_dead_boot_that_held_nothing_is_removed(self, scene: Scene) -> None:
        await scene.beat()
        await scene.lose()
        taken = await scene.stalled()
        assert (list(taken.ready), taken.more) == ([], False)
        assert await self._rows(scene) == {}

    async def test_two_recoveries_never_take_one_job_twice(self, scene: Scene, peer: Store) -> None:
        other = Scene(peer, scene.now)
        ids = [str(n) for n in range(30)]
        for id in ids:
            await scene.start(id)
        await scene.lose()
        taken = await asyncio.gather(*(side.stalled(limit=8) for _ in range(3) for side in (scene, other)))
        assert sorted(row.id for part in taken for row in part.ready) == sorted(ids)
        assert {(await scene.job(id)).stalled for id in ids} == {1}

    async def test_recovery_and_finish_race_to_one_winner(self, scene: Scene, peer: Store) -> None:
        other = Scene(peer, scene.now)
        ids = [str(n) for n in range(20)]
        for id in ids:
            await scene.start(id)

        async def recover() -> set[str]:
            assert await other.lose()
            return {row.id for row in (await other.stalled()).ready}

        finishes, recovered = await asyncio.gather(asyncio.gather(*(scene.finish(id) for id in ids)), recover())
        finished = {answer.id for answer in finishes if answer.finish is Finish.DONE}
        assert finished | recovered == set(ids)
        assert finished & recovered == set()
        assert {id for id in ids if (await scene.job(id)).state is State.COMPLETED} == finished
