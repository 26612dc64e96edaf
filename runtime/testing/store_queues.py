"""What QueueControl, Inspection and Retention promise, and the store itself (protocol T18; 2.10; I23)."""

from __future__ import annotations

import pytest

from ...metadata.contract import CAPABILITIES, Counts, Ending, Jobs, Store, Verdict
from ...metadata.errors import CapabilityMissing
from ...metadata.job import Keep, Outbox, State
from .store_scene import ADOPTION_WINDOW, BOOT, DAY, OTHER, QUEUE, Scene, StoreSuite

BRIEF = Keep(age=1_000)


class QueueConformance(StoreSuite):
    # -- the store -------------------------------------------------------------------------------------------------

    async def test_a_store_offers_what_it_says(self, store: Store) -> None:
        assert Jobs in store.capabilities
        assert store.capabilities <= set(CAPABILITIES)
        for capability in store.capabilities:
            assert isinstance(store.get(capability), capability)

    async def test_a_store_refuses_a_capability_that_it_does_not_have(self, store: Store) -> None:
        class Unheard: ...

        with pytest.raises(CapabilityMissing) as refused:
            store.get(Unheard)
        assert (refused.value.capability, refused.value.store) == ("Unheard", store.scheme)

    async def test_an_open_store_says_what_it_is(self, store: Store) -> None:
        assert isinstance(store.durable, bool)
        assert len(store.epoch) >= 16
        assert isinstance(store.version, str)
        await store.ping()
        assert all(finding.message for finding in await store.check())

    async def test_two_stores_on_the_same_data_have_one_epoch(self, store: Store, peer: Store) -> None:
        assert peer.epoch == store.epoch

    async def test_a_store_that_is_opened_again_has_its_epoch_and_its_jobs(self, store: Store, scene: Scene) -> None:
        await scene.add("job")
        epoch = store.epoch
        await store.close()
        await store.open()
        assert store.epoch == epoch
        assert (await scene.job()).state is State.WAITING

    async def test_the_epoch_is_the_same_when_it_is_read_again(self, store: Store, peer: Store) -> None:
        epoch = store.epoch
        assert await store.read_epoch() == await peer.read_epoch() == store.epoch == epoch

    async def test_another_store_is_of_another_epoch(self, store: Store) -> None:
        another = await self.make_store()
        await another.open()
        try:
            assert another.epoch != store.epoch
            assert list(await Scene(another, 0).control.queues()) == []
        finally:
            await self.discard(another)
            await another.close()

    # -- queues ----------------------------------------------------------------------------------------------------

    async def test_registered_queues_are_known_sorted_and_once(self, scene: Scene) -> None:
        await scene.control.register(["reports", "alerts"])
        await scene.control.register(["reports"])
        assert list(await scene.control.queues()) == ["alerts", QUEUE, "reports"]

    async def test_a_paused_queue_is_told_until_it_is_resumed(self, scene: Scene) -> None:
        assert list(await scene.control.paused([QUEUE])) == []
        await scene.control.pause(QUEUE)
        await scene.control.pause(QUEUE)
        assert list(await scene.control.paused(["reports", QUEUE])) == [QUEUE]
        await scene.control.resume(QUEUE)
        await scene.control.resume(QUEUE)
        assert list(await scene.control.paused([QUEUE])) == []

    async def test_a_pause_stops_its_own_queue_only(self, scene: Scene) -> None:
        await scene.control.pause("reports")
        assert (await scene.start("job")).verdict is Verdict.CLAIMED

    async def test_queue_names_with_dots_and_dashes_and_colons_are_kept_apart(self, scene: Scene) -> None:
        names = ["a.b", "a:b", "a-b", "a_b", "a", "b", "a:b:job", "A.b"]
        await scene.control.register(names)
        await scene.enqueue(*(scene.new("job", queue=name, payload=name.encode()) for name in names))
        await scene.control.pause("a:b")
        assert set(await scene.control.queues()) == {QUEUE, *names}
        assert [(await scene.job("job", name)).payload for name in names] == [name.encode() for name in names]
        assert list(await scene.control.paused(names)) == ["a:b"]

    @pytest.mark.parametrize(
        "state", [State.WAITING, State.DELAYED, State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED]
    )
    async def test_clear_removes_the_jobs_of_one_state(self, scene: Scene, state: State) -> None:
        ids = await _one_in_each_state(scene)
        scene.step(60_000)
        await scene.beat()
        assert list(await scene.control.clear(QUEUE, state, before=scene.now, limit=10, now=scene.now)) == [ids[state]]
        left = {other for other, id in ids.items() if await scene.find(id) is not None}
        assert left == set(ids) - {state}
        assert list(await scene.control.clear(QUEUE, state, before=scene.now, limit=10, now=scene.now)) == []
        assert (await scene.claim(ids[state])).verdict is Verdict.GONE

    async def test_clear_takes_the_oldest_first_up_to_its_limit(self, scene: Scene) -> None:
        for n in range(5):
            await scene.run(str(n))
            scene.step(10)
        cleared = await scene.control.clear(QUEUE, State.COMPLETED, before=scene.now, limit=3, now=scene.now)
        assert list(cleared) == ["0", "1", "2"]

    async def test_clear_leaves_what_entered_the_state_later(self, scene: Scene) -> None:
        await scene.run("old")
        scene.step(10)
        await scene.run("new")
        cleared = await scene.control.clear(QUEUE, State.COMPLETED, before=scene.now, limit=10, now=scene.now)
        assert list(cleared) == ["old"]

    async def test_clear_looks_at_the_run_at_of_delayed_jobs(self, scene: Scene) -> None:
        await scene.add("sooner", run_at=scene.now + 1_000)
        await scene.add("later", run_at=scene.now + 3_000)
        cleared = await scene.control.clear(QUEUE, State.DELAYED, before=scene.now + 2_000, limit=10, now=scene.now)
        assert list(cleared) == ["sooner"]

    async def test_clear_frees_the_deduplication_id(self, scene: Scene) -> None:
        await scene.add_unique("holder", ttl=60_000)
        scene.step(1)
        await scene.control.clear(QUEUE, State.WAITING, before=scene.now, limit=10, now=scene.now)
        assert await scene.deduplicating.holder(QUEUE, "key", now=scene.now) is None

    @pytest.mark.parametrize("state", [state for state in State if state is not State.WAITING_CHILDREN])
    async def test_a_queue_that_holds_a_job_is_not_forgotten(self, scene: Scene, state: State) -> None:
        ids = await _one_in_each_state(scene)
        await scene.workers.leave(BOOT, [QUEUE])
        others = [id for other, id in ids.items() if other not in (state, State.ACTIVE)]
        await scene.jobs.remove(QUEUE, others, now=scene.now)
        if state is not State.ACTIVE:
            await scene.finish(ids[State.ACTIVE])
            await scene.jobs.remove(QUEUE, [ids[State.ACTIVE]], now=scene.now)
            await scene.workers.leave(BOOT, [QUEUE])
        assert not await scene.control.forget(QUEUE)
        assert QUEUE in await scene.control.queues()
        assert (await scene.job(ids[state])).state is state

    async def test_a_queue_that_a_worker_serves_is_not_forgotten(self, scene: Scene) -> None:
        await scene.beat()
        assert not await scene.control.forget(QUEUE)

    async def test_a_forgotten_queue_loses_its_name_its_pause_and_its_tombstones(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.jobs.remove(QUEUE, ["job"], now=scene.now)
        await scene.control.pause(QUEUE)
        assert await scene.control.forget(QUEUE)
        assert list(await scene.control.queues()) == []
        assert list(await scene.control.paused([QUEUE])) == []
        await scene.beat()
        assert (await scene.claim("job")).verdict is Verdict.UNKNOWN

    async def test_a_forgotten_queue_is_forgotten_again(self, scene: Scene) -> None:
        assert await scene.control.forget(QUEUE)
        assert await scene.control.forget(QUEUE)

    async def test_a_queue_is_as_it_was_after_a_busy_life(self, scene: Scene, store: Store) -> None:
        ids = await _one_in_each_state(scene)
        await scene.add_unique("unique", ttl=5_000)
        await scene.jobs.progress(QUEUE, ids[State.ACTIVE], dispatch=1, owner=BOOT, value=b"half")
        await scene.beat(OTHER)
        await scene.lose(OTHER)
        await scene.stalled(OTHER)
        await scene.finish(ids[State.ACTIVE])
        await scene.workers.leave(BOOT, [QUEUE])
        await scene.jobs.remove(QUEUE, [*ids.values(), "unique"], now=scene.now)
        scene.step(ADOPTION_WINDOW + 1)
        await scene.prune()
        assert (await scene.inspection.counts([QUEUE]))[QUEUE] == Counts()
        assert await scene.control.forget(QUEUE)
        assert list(await self.leftovers(store)) == []

    # -- inspection ------------------------------------------------------------------------------------------------

    async def test_records_are_read_in_the_order_asked_for(self, scene: Scene) -> None:
        await scene.enqueue(scene.new("a"), scene.new("b"))
        jobs = await scene.inspection.get(QUEUE, ["b", "nobody", "a"])
        assert [job and job.id for job in jobs] == ["b", None, "a"]

    async def test_jobs_are_counted_by_state(self, scene: Scene) -> None:
        await _one_in_each_state(scene)
        counts = await scene.inspection.counts([QUEUE, "nothing"])
        assert counts == {
            QUEUE: Counts(waiting=1, delayed=1, active=1, completed=1, failed=1, cancelled=1, expired=1, unpublished=1),
            "nothing": Counts(),
        }

    async def test_waiting_jobs_are_counted_by_where_their_ticket_is(self, scene: Scene) -> None:
        await scene.beat()
        await scene.enqueue(*(scene.new(id) for id in ("held", "sent", "due")))
        await scene.confirm("sent")
        await scene.control.pause(QUEUE)
        await scene.claim("held")
        counts = (await scene.inspection.counts([QUEUE]))[QUEUE]
        assert (counts.waiting, counts.held, counts.paused) == (3, 1, True)
        assert (await scene.job("held")).outbox is Outbox.HELD
        assert (await scene.job("due")).outbox is Outbox.DUE
        assert counts.unpublished == 2

    async def test_a_page_lists_jobs_by_the_time_they_entered_the_state(self, scene: Scene) -> None:
        for id in ("a", "b", "c", "d", "e"):
            await scene.run(id)
            scene.step(10)
        pages = [
            [
                job.id
                for job in await scene.inspection.page(
                    QUEUE, State.COMPLETED, offset=offset, limit=2, newest_first=newest
                )
            ]
            for newest in (False, True)
            for offset in (0, 2, 4, 6)
        ]
        assert pages == [["a", "b"], ["c", "d"], ["e"], [], ["e", "d"], ["c", "b"], ["a"], []]

    async def test_a_page_of_delayed_jobs_is_in_the_order_of_their_run_at(self, scene: Scene) -> None:
        await scene.enqueue(
            scene.new("late", run_at=scene.now + 3_000),
            scene.new("soon", run_at=scene.now + 1_000),
            scene.new("then", run_at=scene.now + 2_000),
        )
        page = await scene.inspection.page(QUEUE, State.DELAYED, offset=0, limit=10, newest_first=False)
        assert [job.id for job in page] == ["soon", "then", "late"]

    async def test_a_page_holds_what_get_reads(self, scene: Scene) -> None:
        ids = await _one_in_each_state(scene)
        for state, id in ids.items():
            (listed,) = await scene.inspection.page(QUEUE, state, offset=0, limit=10, newest_first=True)
            assert listed == await scene.job(id)

    # -- retention -------------------------------------------------------------------------------------------------

    async def test_a_record_past_its_age_is_pruned_to_a_tombstone(self, scene: Scene) -> None:
        await scene.run("job", keep=BRIEF)
        scene.step(999)
        assert await scene.prune() == 0
        assert await scene.find("job") is not None
        scene.step(2)
        assert await scene.prune() == 1
        assert await scene.find("job") is None
        assert (await scene.claim("job", 1, adopt=scene.new("job"))).verdict is Verdict.GONE

    async def test_a_record_without_an_age_stays(self, scene: Scene) -> None:
        await scene.run("job", keep=Keep())
        scene.step(DAY)
        assert await scene.prune() == 0
        assert (await scene.job()).state is State.COMPLETED

    async def test_a_tombstone_is_dropped_when_the_adoption_window_is_over(self, scene: Scene) -> None:
        await scene.run("job", keep=BRIEF)
        scene.step(1_001)
        await scene.prune()
        scene.step(ADOPTION_WINDOW - 1)
        await scene.prune()
        assert (await scene.claim("job")).verdict is Verdict.GONE
        scene.step(2)
        await scene.prune()
        assert (await scene.claim("job")).verdict is Verdict.UNKNOWN

    async def test_only_the_newest_records_of_a_group_are_kept(self, scene: Scene) -> None:
        for n in range(5):
            await scene.run(str(n), keep=Keep(count=2, group="task"))
            scene.step(10)
        await scene.prune()
        assert [await scene.find(str(n)) is not None for n in range(5)] == [False, False, False, True, True]
        assert (await scene.claim("0")).verdict is Verdict.GONE

    async def test_a_count_of_none_kept_leaves_a_tombstone_only(self, scene: Scene) -> None:
        assert (await scene.run("job", keep=Keep(count=0))).finish.value == "done"
        await scene.prune()
        assert await scene.find("job") is None
        assert (await scene.claim("job")).verdict is Verdict.GONE

    async def test_groups_and_states_are_counted_apart(self, scene: Scene) -> None:
        await scene.run("a", keep=Keep(count=1, group="one"))
        await scene.run("b", keep=Keep(count=1, group="two"))
        await scene.run("c", Ending.FAILED, keep=Keep(count=1, group="one"))
        await scene.prune()
        assert all([await scene.find(id) is not None for id in ("a", "b", "c")])

    async def test_a_count_that_was_lowered_prunes_the_rest_later(self, scene: Scene) -> None:
        for n in range(30):
            await scene.run(f"{n:02}", keep=Keep(count=100, group="task"))
            scene.step(10)
        await scene.run("last", keep=Keep(count=3, group="task"))
        await scene.prune(limit=5)
        page = await scene.inspection.page(QUEUE, State.COMPLETED, offset=0, limit=100, newest_first=False)
        assert [job.id for job in page] == ["28", "29", "last"]

    async def test_a_removed_record_no_longer_counts_in_its_group(self, scene: Scene) -> None:
        for id in ("a", "b"):
            await scene.run(id, keep=Keep(count=2, group="task"))
            scene.step(10)
        await scene.jobs.remove(QUEUE, ["b"], now=scene.now)
        await scene.run("c", keep=Keep(count=2, group="task"))
        await scene.prune()
        assert [await scene.find(id) is not None for id in ("a", "b", "c")] == [True, False, True]

    async def test_prune_removes_up_to_its_limit_and_says_that_there_is_more(self, scene: Scene) -> None:
        for n in range(5):
            await scene.run(str(n), keep=BRIEF)
        scene.step(1_001)
        first = await scene.retention.prune([QUEUE], now=scene.now, adoption_window=ADOPTION_WINDOW, limit=2)
        assert (first.removed, first.more) == (2, True)
        assert (await scene.inspection.counts([QUEUE]))[QUEUE].completed == 3
        assert await scene.prune(limit=2) == 3

    async def test_prune_touches_nothing_that_is_not_final(self, scene: Scene) -> None:
        ids = await _one_in_each_state(scene)
        lively = [ids[state] for state in (State.WAITING, State.DELAYED, State.ACTIVE)]
        before = await scene.inspection.get(QUEUE, lively)
        scene.step(ADOPTION_WINDOW * 10)
        await scene.prune()
        assert await scene.inspection.get(QUEUE, lively) == before


async def _one_in_each_state(scene: Scene) -> dict[State, str]:
    """The ids of seven jobs, one in each state."""
    ids: dict[State, str] = {state: f"is-{state}" for state in State if state is not State.WAITING_CHILDREN}
    await scene.run(ids[State.COMPLETED])
    await scene.run(ids[State.FAILED], Ending.FAILED)
    await scene.add(ids[State.CANCELLED])
    await scene.jobs.cancel(QUEUE, [ids[State.CANCELLED]], now=scene.now, keep=Keep())
    await scene.add(ids[State.EXPIRED], expires_at=scene.now - 1)
    await scene.claim(ids[State.EXPIRED])
    await scene.start(ids[State.ACTIVE])
    await scene.add(ids[State.DELAYED], run_at=scene.now + 5_000)
    await scene.add(ids[State.WAITING])
    return ids
