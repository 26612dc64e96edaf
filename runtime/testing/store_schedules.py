"""Schedules that are kept, and fired once for each occurrence (protocol T17, F1, F2)."""

from __future__ import annotations

import asyncio

from ...metadata.contract import MAX_BATCH, Admission, Store
from ...metadata.job import Keep, Outbox, State
from ...metadata.schedule import Schedule
from ...metadata.schedules import DueSchedules, Fire, Fired, Resume, Schedules, Upsert, Upserted
from .store_scene import DAY, GRACE, MANY, QUEUE, Scene
from .store_timetable import LATER, ScheduleSuite, Timetable

HOSTILE = ["plain", "a:b", "{}", "}{", "nul\0", "'); return --", "ünï ☃", "%s", "reports@20300101T000000Z"]


class ScheduleConformance(ScheduleSuite):
    # --- upsert, get, page, count, remove ---

    async def test_a_schedule_comes_back_as_it_was_sent(self, scene: Scene, timetable: Timetable) -> None:
        blob = bytes(range(256))
        answer = await timetable.put(trigger=blob, definition=blob[::-1], state=b"\0", next_run=scene.now + 5)
        assert answer == Upserted("nightly", Upsert.CREATED, scene.now + 5, 1)
        assert await timetable.schedule() == Schedule(
            id="nightly",
            queue=QUEUE,
            trigger=blob,
            definition=blob[::-1],
            state=b"\0",
            next_run=scene.now + 5,
            paused=False,
            revision=1,
            created_at=scene.now,
            updated_at=scene.now,
        )

    async def test_a_repeated_upsert_changes_nothing(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        before = await timetable.schedule()
        scene.step(10)
        assert (await timetable.put(next_run=scene.now + 999)).upsert is Upsert.UNCHANGED
        assert await timetable.schedule() == before

    async def test_an_equal_trigger_keeps_the_next_run_and_the_state(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put(state=b"kept")
        answer = await timetable.put(definition=b"other", next_run=scene.now + LATER, state=b"new")
        assert answer == Upserted("nightly", Upsert.UPDATED, scene.now, 2)
        schedule = await timetable.schedule()
        assert (schedule.definition, schedule.state, schedule.next_run) == (b"other", b"kept", scene.now)

    async def test_another_trigger_takes_the_new_next_run_and_state(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put(state=b"kept")
        scene.step(7)
        answer = await timetable.put(trigger=b"every day", next_run=scene.now + LATER, state=b"new")
        assert answer == Upserted("nightly", Upsert.UPDATED, scene.now + LATER, 2)
        schedule = await timetable.schedule()
        assert (schedule.state, schedule.updated_at - schedule.created_at) == (b"new", 7)
        assert await timetable.due() == []

    async def test_an_upsert_leaves_a_pause_in_force(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.pause()
        await timetable.put(trigger=b"every day", next_run=scene.now)
        assert (await timetable.schedule()).paused
        assert await timetable.due() == []

    async def test_a_change_at_the_named_revision_is_made(self, timetable: Timetable) -> None:
        await timetable.put()
        assert (await timetable.put(definition=b"other", revision=1)).upsert is Upsert.UPDATED

    async def test_a_repeated_change_at_a_revision_is_unchanged(self, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.put(definition=b"other", revision=1)
        assert (await timetable.put(definition=b"other", revision=1)).upsert is Upsert.UNCHANGED

    async def test_a_change_at_another_revision_is_refused(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.put(definition=b"other")
        answer = await timetable.put(definition=b"third", revision=1)
        assert answer == Upserted("nightly", Upsert.CONFLICT, scene.now, 2)
        assert (await timetable.schedule()).definition == b"other"

    async def test_a_change_of_a_schedule_that_is_not_there_makes_none(self, timetable: Timetable) -> None:
        assert await timetable.put(revision=1) == Upserted("nightly", Upsert.GONE, None, 0)
        assert await timetable.find() is None

    async def test_entries_of_one_batch_see_each_other(self, scene: Scene, timetable: Timetable) -> None:
        entries = [timetable.new(), timetable.new(definition=b"other"), timetable.new("weekly", queue="reports")]
        answers = await timetable.schedules.upsert(entries, now=scene.now)
        assert [(answer.id, answer.upsert) for answer in answers] == [
            ("nightly", Upsert.CREATED),
            ("nightly", Upsert.UPDATED),
            ("weekly", Upsert.CREATED),
        ]

    async def test_empty_batches_answer_nothing(self, scene: Scene, timetable: Timetable) -> None:
        schedules = timetable.schedules
        assert list(await schedules.upsert([], now=scene.now)) == []
        assert list(await schedules.get(QUEUE, [])) == []
        assert list(await schedules.fire(QUEUE, [], now=scene.now, grace=GRACE)) == []
        assert list(await schedules.remove(QUEUE, [])) == []
        assert await schedules.due([], now=scene.now, limit=MANY) == DueSchedules([], None)

    async def test_schedules_are_paged_by_id_and_counted(self, timetable: Timetable) -> None:
        for id in ("c", "a", "d", "b"):
            await timetable.put(id)
        page = await timetable.schedules.page(QUEUE, offset=1, limit=2)
        assert [schedule.id for schedule in page] == ["b", "c"]
        assert await timetable.schedules.count([QUEUE, "empty"]) == {QUEUE: 4, "empty": 0}

    async def test_hostile_ids_come_back_as_they_were(self, scene: Scene, timetable: Timetable) -> None:
        for id in HOSTILE:
            await timetable.put(id)
            assert (await timetable.fire(id)).fire is Fire.FIRED
            assert await timetable.pause(id)
        page = await timetable.schedules.page(QUEUE, offset=0, limit=MANY)
        assert sorted(schedule.id for schedule in page) == sorted(HOSTILE)

    async def test_a_removed_schedule_is_gone_and_its_jobs_stay(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.fire()
        assert await timetable.remove()
        assert not await timetable.remove()
        assert await timetable.find() is None
        assert await timetable.due() == []
        assert await timetable.schedules.count([QUEUE]) == {QUEUE: 0}
        assert (await scene.job(f"nightly@{scene.now}")).state is State.WAITING

    async def test_a_queue_with_a_schedule_is_not_forgotten(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        assert not await scene.control.forget(QUEUE)
        await timetable.remove()
        assert await scene.control.forget(QUEUE)

    # --- due ---

    async def test_a_schedule_is_due_at_its_next_run_and_not_before(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put(next_run=scene.now + 5)
        scene.step(4)
        assert (await timetable.due(), (await timetable.look()).next_due) == ([], scene.now + 1)
        scene.step(1)
        assert await timetable.due() == ["nightly"]

    async def test_looking_at_what_is_due_takes_nothing(self, timetable: Timetable) -> None:
        await timetable.put()
        assert await timetable.due() == await timetable.due() == ["nightly"]

    async def test_the_earliest_come_first_up_to_the_limit(self, scene: Scene, timetable: Timetable) -> None:
        for number in (3, 1, 2, 0):
            await timetable.put(f"s{number}", next_run=scene.now - 10 + number)
        seen = await timetable.look(limit=3)
        assert [schedule.id for schedule in seen.schedules] == ["s0", "s1", "s2"]
        assert seen.next_due == scene.now - 7

    async def test_a_schedule_without_a_next_run_is_never_due(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put(next_run=None)
        scene.step(DAY)
        assert (await timetable.look()).next_due is None
        assert await timetable.due() == []

    async def test_no_clock_that_runs_ahead_makes_a_schedule_due(self, scene: Scene, timetable: Timetable) -> None:
        if not scene.store.server_time:
            return
        ahead = scene.now + 10 * DAY
        await timetable.put(next_run=ahead)
        seen = await timetable.schedules.due([QUEUE], now=ahead, limit=MANY)
        assert (list(seen.schedules), seen.next_due) == ([], ahead)
        assert abs(seen.gap + 8 * DAY) < 3_600_000  # the scene's clock is two days behind the store's

    async def test_what_is_due_is_found_in_several_queues(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put("a")
        await timetable.put("b", queue="reports", next_run=scene.now + 1)
        await timetable.put("c", queue="other")
        seen = await timetable.schedules.due([QUEUE, "reports", "other"], now=scene.now, limit=MANY)
        assert [(schedule.queue, schedule.id) for schedule in seen.schedules] == [(QUEUE, "a"), ("other", "c")]
        assert seen.next_due == scene.now + 1

    # --- fire ---

    async def test_a_firing_moves_the_schedule_and_enqueues_its_job(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        answer = await timetable.fire()
        (enqueued,) = answer.enqueued
        assert (answer.fire, enqueued.admission, enqueued.state, enqueued.dispatch) == (
            Fire.FIRED,
            Admission.CREATED,
            State.WAITING,
            1,
        )
        schedule = await timetable.schedule()
        assert (schedule.next_run, schedule.state, schedule.revision) == (scene.now + LATER, b"fired", 1)
        assert (await scene.job(f"nightly@{scene.now}")).outbox is Outbox.DUE

    async def test_what_a_crashed_scheduler_has_fired_comes_out_of_the_outbox(
        self, scene: Scene, timetable: Timetable
    ) -> None:
        await timetable.put()
        await timetable.fire()
        assert await scene.unpublished() == []
        fired_at = scene.now
        scene.step(GRACE)
        assert await scene.unpublished() == [(f"nightly@{fired_at}", 1)]

    async def test_a_repeated_firing_is_answered_as_the_first(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        first = await timetable.fire()
        assert await timetable.fire() == first
        assert (await scene.inspection.counts([QUEUE]))[QUEUE].waiting == 1

    async def test_a_late_repeat_of_a_firing_does_not_run_again_what_has_run_and_is_forgotten(
        self, scene: Scene, timetable: Timetable
    ) -> None:
        await timetable.put()
        await timetable.fire()
        id = f"nightly@{scene.now}"
        await scene.beat()
        await scene.claim(id)
        await scene.finish(id, keep=Keep(count=0))
        await scene.prune()
        assert await scene.find(id) is None
        answer = await timetable.fire()
        (enqueued,) = answer.enqueued
        assert (answer.fire, enqueued.id, enqueued.state) == (Fire.FIRED, id, State.COMPLETED)
        assert await scene.find(id) is None

    async def test_a_firing_by_another_from_the_same_run_comes_too_late(
        self, scene: Scene, timetable: Timetable
    ) -> None:
        await timetable.put()
        await timetable.fire()
        other = scene.new("another")
        answer = await timetable.fire(by="scheduler-b", jobs=(other,), state=b"theirs")
        assert answer == Fired("nightly", Fire.MOVED)
        assert await scene.find("another") is None
        assert (await timetable.schedule()).state == b"fired"

    async def test_a_late_repeat_finds_the_schedule_moved(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        start = scene.now
        await timetable.fire()
        await timetable.fire(due=start + LATER, by="scheduler-b")
        assert (await timetable.fire(due=start)).fire is Fire.MOVED

    async def test_a_changed_schedule_is_not_fired_as_it_was(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.put(definition=b"other")
        assert (await timetable.fire()).fire is Fire.MOVED
        assert (await timetable.fire(revision=2)).fire is Fire.FIRED

    async def test_a_schedule_changed_after_a_firing_does_not_answer_its_repeat(
        self, scene: Scene, timetable: Timetable
    ) -> None:
        await timetable.put()
        await timetable.fire()
        await timetable.put(trigger=b"every day", next_run=scene.now)
        assert (await timetable.fire()).fire is Fire.MOVED

    async def test_a_paused_schedule_is_not_fired(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.pause()
        assert await timetable.fire() == Fired("nightly", Fire.PAUSED)
        assert await scene.find(f"nightly@{scene.now}") is None

    async def test_a_removed_schedule_is_not_fired(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.remove()
        assert await timetable.fire() == Fired("nightly", Fire.GONE)
        assert await scene.find(f"nightly@{scene.now}") is None

    async def test_a_schedule_made_anew_is_fired_anew(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.fire()
        await timetable.remove()
        await timetable.put()
        answer = await timetable.fire(by="scheduler-b")
        assert (answer.fire, answer.enqueued[0].admission) == (Fire.FIRED, Admission.CREATED)

    async def test_the_last_firing_leaves_no_next_run(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.fire(next_run=None)
        assert (await timetable.schedule()).next_run is None
        assert (await timetable.look()).next_due is None

    async def test_a_firing_may_have_many_jobs_or_none(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        start = scene.now
        assert (await timetable.fire(jobs=())).fire is Fire.FIRED
        jobs = tuple(scene.new(f"job-{number}") for number in range(MAX_BATCH))
        answer = await timetable.fire(due=start + LATER, jobs=jobs)
        assert [enqueued.id for enqueued in answer.enqueued] == [job.id for job in jobs]

    async def test_a_taken_job_id_does_not_hold_the_schedule_up(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await scene.add(f"nightly@{scene.now}", payload=b"somebody else's")
        answer = await timetable.fire()
        assert (answer.fire, answer.enqueued[0].admission) == (Fire.FIRED, Admission.EXISTING)

    async def test_a_bad_entry_affects_only_itself(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put("a")
        await timetable.put("b")
        answers = await timetable.fires(timetable.firing("a"), timetable.firing("gone"), timetable.firing("b"))
        assert [answer.fire for answer in answers] == [Fire.FIRED, Fire.GONE, Fire.FIRED]

    async def test_two_firings_of_one_schedule_in_a_batch_follow_one_another(
        self, scene: Scene, timetable: Timetable
    ) -> None:
        await timetable.put()
        answers = await timetable.fires(timetable.firing(), timetable.firing(due=scene.now + LATER))
        assert [answer.fire for answer in answers] == [Fire.FIRED, Fire.FIRED]
        assert (await timetable.schedule()).next_run == scene.now + 2 * LATER

    async def test_who_removes_schedules_that_others_change_is_told_of_each(
        self, scene: Scene, timetable: Timetable, peer: Store
    ) -> None:
        other, ids = Timetable(Scene(peer, scene.now), peer.get(Schedules)), [str(number) for number in range(24)]
        for _ in range(6):
            await timetable.schedules.upsert([timetable.new(id) for id in ids], now=scene.now)
            removing = asyncio.ensure_future(timetable.schedules.remove(QUEUE, ids))
            await asyncio.gather(removing, *(other.pause(id) for id in ids[::3]))
            assert list(removing.result()) == [True] * len(ids)
        assert await timetable.schedules.count([QUEUE]) == {QUEUE: 0}

    async def test_of_many_schedulers_one_fires_each_run(self, scene: Scene, timetable: Timetable, peer: Store) -> None:
        other = Timetable(Scene(peer, scene.now), peer.get(Schedules))
        await timetable.put()
        start = scene.now
        for run in range(5):
            due = start + run * LATER
            answers = await asyncio.gather(
                *(
                    side.fire(due=due, by=f"scheduler-{number}", jobs=(scene.new(f"run-{run}-{number}"),))
                    for number in range(10)
                    for side in (timetable if number % 2 else other,)
                )
            )
            assert sorted(answer.fire for answer in answers) == [Fire.FIRED, *[Fire.MOVED] * 9]
        assert (await scene.inspection.counts([QUEUE]))[QUEUE].waiting == 5

    # --- pause and resume ---

    async def test_a_paused_schedule_is_not_due(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        assert await timetable.pause()
        assert await timetable.pause()
        schedule = await timetable.schedule()
        assert (schedule.paused, schedule.revision, schedule.next_run) == (True, 2, scene.now)
        assert (await timetable.look()).next_due is None
        assert await timetable.due() == []

    async def test_a_resumed_schedule_runs_from_the_new_next_run(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.pause()
        assert await timetable.resume(next_run=scene.now + 3, state=b"resumed") is Resume.RESUMED
        schedule = await timetable.schedule()
        assert (schedule.paused, schedule.revision, schedule.state) == (False, 3, b"resumed")
        scene.step(3)
        assert await timetable.due() == ["nightly"]

    async def test_a_repeated_resume_changes_nothing(self, scene: Scene, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.pause()
        await timetable.resume()
        before = await timetable.schedule()
        assert await timetable.resume(next_run=scene.now) is Resume.RUNNING
        assert await timetable.schedule() == before

    async def test_a_resume_of_what_was_changed_meanwhile_is_refused(self, timetable: Timetable) -> None:
        await timetable.put()
        await timetable.pause()
        await timetable.put(definition=b"other")
        assert await timetable.resume(revision=2) is Resume.MOVED
        assert (await timetable.schedule()).paused

    async def test_what_is_not_there_is_neither_paused_nor_resumed(self, timetable: Timetable) -> None:
        assert not await timetable.pause()
        assert await timetable.resume() is Resume.GONE
        assert await timetable.find() is None
