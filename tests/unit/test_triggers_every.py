"""Grids and single moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.runtime.triggers import At, Every, Tally, TriggerInvalid, preview
from callboard.runtime.triggers.grid import Grid

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("every", "interval"),
    [
        (Every(90), timedelta(seconds=90)),
        (Every(seconds=1.5), timedelta(milliseconds=1500)),
        (Every(timedelta(hours=1)), timedelta(hours=1)),
        (
            Every(weeks=1, days=1, hours=1, minutes=1, seconds=1),
            timedelta(weeks=1, days=1, hours=1, minutes=1, seconds=1),
        ),
        (Every(0.01, shortest=0.001), timedelta(milliseconds=10)),
    ],
)
def test_an_interval_may_be_given_in_parts_that_are_added_up(every: Every, interval: timedelta) -> None:
    assert every.interval == interval


def test_the_first_occurrence_is_the_start() -> None:
    assert preview(Every(60, start=START), START - timedelta(days=1), 2) == [START, START + timedelta(minutes=1)]


def test_a_grid_without_a_start_hangs_on_the_epoch_until_it_is_anchored() -> None:
    moment = START + timedelta(seconds=7)

    assert Every(60).next_after(moment) == START + timedelta(seconds=60)
    assert Every(60).anchored(moment).next_after(moment) == START + timedelta(seconds=67)
    assert Every(60, start=START).anchored(moment) == Every(60, start=START)


def test_a_grid_that_is_anchored_after_its_end_never_occurs() -> None:
    assert Every(60, end=START).anchored(START).next_after(START - timedelta(days=1)) is None


@given(st.integers(1000, 10**10), st.integers(0, 10**12))
def test_a_moment_on_the_grid_is_followed_by_the_next_and_never_by_itself(interval: int, steps: int) -> None:
    trigger = Every(interval / 1000, start=datetime(1970, 1, 1, tzinfo=UTC))
    reached = trigger.next_after(START + timedelta(milliseconds=steps % 10**9))

    assert reached is not None
    assert trigger.next_after(reached) == reached + trigger.interval
    assert trigger.next_after(reached - timedelta(microseconds=1)) == reached
    assert trigger.next_after(reached + timedelta(microseconds=1)) == reached + trigger.interval


def test_ten_thousand_occurrences_later_the_grid_has_not_drifted() -> None:
    trigger = Every(0.1, start=START, shortest=0.1)
    moment = START
    for _ in range(10_000):
        late = moment + timedelta(microseconds=99_999)
        following = trigger.next_after(late)
        assert following is not None
        moment = following

    assert moment == START + timedelta(seconds=1000)


def test_years_of_missed_seconds_are_counted_at_once() -> None:
    trigger = Every(1, start=START)

    assert trigger.count(START, START + timedelta(days=3650)) == Tally(count=3650 * 86_400)
    assert trigger.count(START - timedelta(seconds=1), START + timedelta(seconds=3)) == Tally(count=4)
    assert trigger.count(START, START) == Tally(count=0)
    assert trigger.count(START + timedelta(days=1), START) == Tally(count=0)


def test_the_end_belongs_to_the_window() -> None:
    trigger = Every(60, start=START, end=START + timedelta(seconds=120))

    assert len(preview(trigger, START - timedelta(days=1), 10)) == 3
    assert trigger.count(START - timedelta(days=1), START + timedelta(days=1)) == Tally(count=3)
    assert trigger.next_after(START + timedelta(seconds=120)) is None


def test_answers_are_in_utc_whatever_the_question_and_the_start_are_in() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))

    answer = Every(60, start=START.astimezone(zone)).next_after(START.astimezone(zone))

    assert answer == START + timedelta(seconds=60)
    assert answer.tzinfo is UTC


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seconds": 0}, "interval=0.0: is shorter than 1 s"),
        ({}, "interval=0.0: is shorter than 1 s"),
        ({"seconds": 0.999}, "interval=0.999"),
        ({"seconds": -1}, "seconds=-1: must not be negative"),
        ({"minutes": -1}, "minutes=-1"),
        ({"seconds": "60"}, "seconds='60': wants seconds"),
        ({"hours": "1"}, "hours='1'"),
        ({"seconds": True}, "not a bool"),
        ({"seconds": float("nan")}, "not a number"),
        ({"seconds": 10**400}, "ten years"),
        ({"weeks": 1000}, "ten years"),
        ({"seconds": 60, "weeks": 10**8}, "weeks=100000000|ten years"),
        ({"seconds": 60, "start": datetime(2026, 1, 1)}, "start=.*no time zone"),
        ({"seconds": 60, "start": "2026-01-01"}, "start='2026-01-01': wants an aware datetime"),
        ({"seconds": 60, "start": START, "end": START - timedelta(seconds=1)}, "end=.*is before start"),
        ({"seconds": 60, "end": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))}, "1970 to 2199"),
        ({"seconds": 60, "jitter": -1}, "jitter=-1"),
        ({"seconds": 60, "jitter": 86_401}, "jitter=86401: is longer than a day"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(TriggerInvalid, match=words):
        Every(**arguments)


def test_one_moment_occurs_once() -> None:
    trigger = At(START)

    assert preview(trigger, START - timedelta(days=1), 3) == [START]
    assert trigger.next_after(START) is None
    assert trigger.count(START - timedelta(days=1), START) == Tally(count=1)
    assert trigger.count(START, START + timedelta(days=1)) == Tally(count=0)
    assert trigger.anchored(START) is trigger


def test_questions_from_the_ends_of_the_calendar_are_answered() -> None:
    assert Every(60).next_after(datetime.min.replace(tzinfo=UTC)) == datetime(1970, 1, 1, tzinfo=UTC)
    assert Every(60).next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert At(START).next_after(datetime.min.replace(tzinfo=UTC)) == START


grids = st.builds(lambda first, step: Grid(first=first, step=step), st.integers(0, 60), st.integers(1, 40))


@given(grids, grids)
def test_the_meeting_of_two_grids_is_what_both_have(one: Grid, other: Grid) -> None:
    horizon = 60 + 3 * one.step * other.step
    both = set(range(one.first, horizon, one.step)) & set(range(other.first, horizon, other.step))

    meeting = one.meeting(other)

    assert (set() if meeting is None else set(range(meeting.first, horizon, meeting.step))) == both
