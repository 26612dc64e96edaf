"""What a scheduler decides about a schedule that is due."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from callboard.metadata.schedule import NewSchedule, Schedule
from callboard.runtime.firing import MAX_BYTES, MAX_RUNS, Decision, decide
from callboard.runtime.schedule_record import (
    MAX_HISTORY,
    VERSION,
    Definition,
    ReadSchedule,
    ScheduleState,
    ScheduleUnreadable,
    encode_state,
    first_state,
    manual_job,
    occurrence_id,
    occurrence_job,
    read_schedule,
    resumed_state,
    succeeding,
)
from callboard.runtime.triggers import At, Every, Policy, Trigger, encode_policy, encode_trigger
from callboard.runtime.triggers.grid import from_ms
from callboard.runtime.wire import decode_body

NOON = 1_795_348_800_000  # 2026-11-22 12:00:00 UTC
SECOND = 1000


def made(trigger: Trigger | None = None, *, definition: bytes | None = None, **policy: object) -> ReadSchedule:
    """A schedule made at noon; each second, if nothing else is said."""
    trigger = trigger or Every(1)
    state, next_run = first_state(trigger, id="tick", now=NOON)
    what = Definition(
        version=VERSION,
        task="task",
        priority=3,
        ttl=5000,
        policy=Raw(encode_policy(Policy.create(**policy))),  # type: ignore[arg-type]
    )
    return read_schedule(
        Schedule(
            id="tick",
            queue="ticks",
            trigger=encode_trigger(trigger),
            definition=definition or msgspec.json.encode(what),
            state=state,
            next_run=next_run,
            created_at=NOON,
            updated_at=NOON,
        )
    )


def after(read: ReadSchedule, decision: Decision) -> ReadSchedule:
    """The schedule once the firing took effect."""
    record = msgspec.structs.replace(read.record, state=encode_state(decision.state), next_run=decision.next_run)
    return read_schedule(record)


def at(seconds: float) -> int:
    return NOON + round(seconds * SECOND)


def fates(decision: Decision) -> list[tuple[str, int]]:
    return [(happening.fate.value, happening.count) for happening in decision.happenings]


def test_an_occurrence_in_time_runs_and_the_next_is_one_step_away() -> None:
    decision = decide(made(), now=at(1.02), ended=set())
    assert (decision.runs, decision.next_run, decision.state.expected) == ((at(1),), at(2), at(2))
    assert (fates(decision), decision.state.totals) == ([("ran", 1)], {"ran": 1})


def test_of_what_a_downtime_left_over_the_latest_runs_and_the_others_are_coalesced() -> None:
    decision = decide(made(), now=at(3600.5), ended=set())
    assert (decision.runs, decision.next_run) == ((at(3600),), at(3601))
    assert fates(decision) == [("coalesced", 3599), ("ran", 1)]


def test_years_of_downtime_are_decided_at_once() -> None:
    years = 10 * 365 * 86_400
    decision = decide(made(), now=at(years), ended=set())
    assert decision.state.totals == {"coalesced": years - 1, "ran": 1}


def test_what_is_later_than_the_grace_is_missed() -> None:
    decision = decide(made(Every(60), misfire_grace=5), now=at(70), ended=set())
    assert (decision.runs, decision.next_run, fates(decision)) == ((), at(120), [("missed", 1)])


def test_a_catch_up_is_bounded_and_comes_in_parts() -> None:
    read = made(coalesce=False, catch_up=100)
    first = decide(read, now=at(150), ended=set())
    assert (len(first.runs), first.runs[0], first.state.totals) == (MAX_RUNS, at(51), {"missed": 50, "ran": MAX_RUNS})
    assert first.next_run == at(51 + MAX_RUNS)
    second = decide(after(read, first), now=at(150), ended=set())
    assert (second.runs[0], second.runs[-1], second.next_run) == (at(51 + MAX_RUNS), at(150), at(151))
    assert second.state.totals == {"missed": 50, "ran": 100}


def test_a_catch_up_of_large_jobs_comes_in_parts_that_a_document_holds() -> None:
    what = Definition(
        version=VERSION,
        task="task",
        priority=3,
        args=Raw(msgspec.json.encode(["x" * 1_000_000])),
        policy=Raw(encode_policy(Policy.create(coalesce=False, catch_up=100))),
    )
    read, ran = made(definition=msgspec.json.encode(what)), list[int]()
    for _ in range(10):
        decision = decide(read, now=at(30), ended=set())
        assert 1 <= len(decision.runs) <= MAX_BYTES // 1_000_000
        ran += decision.runs
        read = after(read, decision)
        if decision.next_run == at(31):
            break
    assert ran == [at(second) for second in range(1, 31)]


def test_a_backlog_of_large_jobs_that_wait_comes_in_parts_too_whatever_the_policy_is_now() -> None:
    waiting = tuple(at(second) for second in range(1, 13))
    for overlap in ("queue", "skip"):
        what = Definition(
            version=VERSION,
            task="task",
            priority=3,
            args=Raw(msgspec.json.encode(["x" * 1_000_000])),
            policy=Raw(encode_policy(Policy.create(max_instances=50, overlap=overlap))),
        )
        read, ran = made(definition=msgspec.json.encode(what)), list[int]()
        state = msgspec.structs.replace(read.state, waiting=waiting, expected=at(1000))
        read = read_schedule(msgspec.structs.replace(read.record, state=encode_state(state), next_run=at(13)))
        for turn in range(4):
            decision = decide(read, now=at(13 + 2 * turn), ended=set())
            assert len(decision.runs) <= MAX_BYTES // 1_000_000
            ran += decision.runs
            read = after(read, decision)
        assert ran == list(waiting)


def test_an_occurrence_is_skipped_while_too_many_run() -> None:
    read = made(max_instances=1)
    first = decide(read, now=at(1), ended=set())
    second = decide(after(read, first), now=at(2), ended=set())
    assert (second.runs, fates(second), second.next_run) == ((), [("skipped", 1)], at(3))
    third = decide(after(read, second), now=at(3), ended={at(1)})
    assert (third.runs, third.state.running) == ((at(3),), (at(3),))


def test_an_occurrence_waits_for_the_end_of_another_and_goes_first_then() -> None:
    read = made(Every(60), max_instances=1, overlap="queue")
    first = decide(read, now=at(60), ended=set())
    second = decide(after(read, first), now=at(120), ended=set())
    assert (second.runs, second.state.waiting, second.next_run) == ((), (at(120),), at(121))
    still = decide(after(read, second), now=at(121), ended=set())
    assert (still.runs, still.happenings, still.next_run) == ((), (), at(122))
    third = decide(after(read, still), now=at(122), ended={at(60)})
    assert (third.runs, third.state.waiting, third.next_run) == ((at(120),), (), at(180))


def test_a_new_run_cancels_the_old_one_until_that_has_ended() -> None:
    read = made(max_instances=1, overlap="cancel")
    first = decide(read, now=at(1), ended=set())
    second = decide(after(read, first), now=at(2), ended=set())
    assert (second.runs, second.cancels, second.state.running) == ((at(2),), (at(1),), (at(1), at(2)))
    third = decide(after(read, second), now=at(3), ended={at(1)})
    assert (third.runs, third.cancels) == ((at(3),), (at(2),))


def test_of_several_that_replace_each_other_at_once_the_last_runs() -> None:
    decision = decide(made(max_instances=1, overlap="cancel", coalesce=False), now=at(3), ended=set())
    assert (decision.runs, decision.cancels, decision.state.running) == ((at(3),), (), (at(3),))
    assert decision.state.totals == {"coalesced": 2, "ran": 1}


def test_every_firing_moves_the_next_run_forward() -> None:
    read = made(Every(60), max_instances=1, overlap="queue")
    ahead = msgspec.structs.replace(read.record, next_run=at(500))
    decision = decide(read_schedule(ahead), now=at(60), ended=set())
    assert decision.next_run == at(500) + 1


def test_a_trigger_that_has_ended_leaves_no_next_run() -> None:
    decision = decide(made(At(from_ms(at(5)))), now=at(5), ended=set())
    assert (decision.runs, decision.next_run, decision.state.expected) == ((at(5),), None, None)


def test_the_jitter_moves_the_run_and_not_the_occurrence() -> None:
    read = made(Every(60, jitter=30))
    assert read.record.next_run is not None
    assert at(60) < read.record.next_run <= at(90)
    decision = decide(read, now=read.record.next_run, ended=set())
    assert decision.runs == (at(60),)


def test_the_history_keeps_the_newest() -> None:
    read = made()
    for second in range(1, MAX_HISTORY + 6):
        read = after(read, decide(read, now=at(second), ended=set()))
    assert [happening.occurrence for happening in read.state.history] == [
        at(second) for second in range(6, MAX_HISTORY + 6)
    ]
    assert read.state.totals == {"ran": MAX_HISTORY + 5}


def test_what_another_engine_computed_is_computed_anew() -> None:
    read = made(Every(60))
    state = msgspec.structs.replace(read.state, engine="croniter 1, calendar 0", expected=at(61))
    record = msgspec.structs.replace(read.record, state=encode_state(state), next_run=at(61))
    decision = decide(read_schedule(record), now=at(61), ended=set())
    assert (decision.runs, decision.next_run) == ((), at(120))


def test_a_resumed_schedule_stays_on_its_grid_and_makes_nothing_up() -> None:
    state, next_run = resumed_state(made(Every(60)), now=at(1000))
    assert next_run == at(1020)
    assert msgspec.json.decode(state, type=ScheduleState).expected == at(1020)


def test_a_moment_that_came_during_a_pause_is_due_after_it() -> None:
    read = made(At(from_ms(at(5))))
    assert resumed_state(read, now=at(60))[1] == at(5)
    over = after(read, decide(read, now=at(5), ended=set()))
    assert resumed_state(over, now=at(60))[1] is None


def test_what_waits_is_skipped_by_a_resume_and_by_another_trigger() -> None:
    read = made(coalesce=False, max_instances=1, overlap="queue", max_queued=5)
    read = after(read, decide(read, now=at(3), ended=set()))
    assert read.state.waiting == (at(2), at(3))
    resumed, _ = resumed_state(read, now=at(60))
    record, (begun, next_run) = read.record, first_state(Every(60), id="tick", now=at(60))
    new = NewSchedule(
        id="tick", queue="ticks", trigger=encode_trigger(Every(60)), definition=record.definition, state=begun,
        next_run=next_run,
    )  # fmt: skip
    successor = succeeding(new, read.state, now=at(60))
    assert successor.next_run == at(120)
    for state in (msgspec.json.decode(some, type=ScheduleState) for some in (resumed, successor.state)):
        assert (state.waiting, state.running, state.totals) == ((), (at(1),), {"ran": 1, "skipped": 2})
        assert [happening.fate.value for happening in state.history] == ["ran", "skipped", "skipped"]


def test_what_waits_when_no_more_may_wait_runs_where_there_is_room_and_is_skipped_else() -> None:
    read = made(Every(1, end=from_ms(at(3))), coalesce=False, max_instances=1, overlap="queue", max_queued=5)
    read = after(read, decide(read, now=at(3), ended=set()))
    skipping = made(max_instances=1).record.definition
    changed = read_schedule(msgspec.structs.replace(read.record, definition=skipping))
    decision = decide(changed, now=at(4), ended=set())
    assert (decision.runs, decision.state.waiting, decision.next_run) == ((), (), None)
    assert fates(decision) == [("skipped", 1), ("skipped", 1)]
    assert decide(changed, now=at(4), ended={at(1)}).runs == (at(2),)


def test_a_job_tells_its_schedule_and_its_occurrence() -> None:
    job = occurrence_job(made(), at(1), now=at(1.5))
    body = decode_body(job.payload)
    assert (job.id, job.queue, job.task, job.priority) == ("tick@20261122T120001Z", "ticks", "task", 3)
    assert (body.id, job.expires_at) == (job.id, at(6.5))
    assert msgspec.json.decode(body.meta)["schedule"] == {"id": "tick", "occurrence": "2026-11-22T12:00:01+00:00"}


def test_ids_of_occurrences_have_no_colon_and_name_the_millisecond_where_there_is_one() -> None:
    assert occurrence_id("a", NOON + 7) == "a@20261122T120000.007Z"


def test_a_manual_job_is_marked() -> None:
    job = manual_job(made(), token="t", now=NOON)
    assert job.id == "tick@manual-t"
    assert msgspec.json.decode(decode_body(job.payload).meta)["schedule"]["manual"] is True


@pytest.mark.parametrize("bytes_", [b"", b"{}", b"\xff", b"[1]", b'{"version": 1, "task": 5}'])
def test_a_damaged_schedule_is_told_by_its_name(bytes_: bytes) -> None:
    record = made().record
    for damaged in (
        msgspec.structs.replace(record, trigger=bytes_),
        msgspec.structs.replace(record, definition=bytes_),
        msgspec.structs.replace(record, state=bytes_),
    ):
        with pytest.raises(ScheduleUnreadable, match="'tick'"):
            read_schedule(damaged)


def test_a_schedule_of_a_newer_version_is_not_guessed_at() -> None:
    read = made()
    newer = msgspec.structs.replace(read.record, state=encode_state(msgspec.structs.replace(read.state, version=2)))
    with pytest.raises(ScheduleUnreadable, match="version"):
        read_schedule(newer)
