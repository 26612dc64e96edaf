"""Any of several triggers, and all of them; jitter, previews and the latest occurrence of any trigger."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.runtime.triggers import (
    AllOf,
    AnyOf,
    At,
    Cron,
    Every,
    Tally,
    Trigger,
    TriggerInvalid,
    fires_at,
    latest_until,
    preview,
)

NOW = datetime(2026, 11, 22, 5, 17, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def seconds(*count: int) -> list[datetime]:
    return [NOW + one * SECOND for one in count]


def test_any_of_occurs_with_each_part_and_once_where_they_coincide() -> None:
    trigger = AnyOf(Every(2, start=NOW), Every(3, start=NOW))

    assert preview(trigger, NOW, 6) == seconds(2, 3, 4, 6, 8, 9)
    assert trigger.count(NOW, NOW + 6 * SECOND) == Tally(count=4)


def test_any_of_ends_when_all_parts_have_ended() -> None:
    trigger = AnyOf(At(NOW + 5 * SECOND), Every(2, start=NOW, end=NOW + 2 * SECOND))

    assert preview(trigger, NOW - SECOND, 9) == seconds(0, 2, 5)


def test_all_of_has_the_common_moments_of_two_grids() -> None:
    trigger = AllOf(Every(2, start=NOW), Every(3, start=NOW))

    assert preview(trigger, NOW, 3) == seconds(6, 12, 18)
    assert AllOf(Every(2), Every(3)).anchored(NOW).next_after(NOW) == NOW + 6 * SECOND


def test_all_of_ends_when_one_part_has_ended() -> None:
    trigger = AllOf(Every(2, start=NOW, end=NOW + 7 * SECOND), Every(3, start=NOW))

    assert preview(trigger, NOW - SECOND, 9) == seconds(0, 6)


def test_all_of_mixes_kinds_zones_and_any_of() -> None:
    nine = Cron("0 9 * * *", zone="Europe/Berlin")
    trigger = AllOf(nine, AnyOf(Cron("0 * * * fri"), At(NOW)), Cron("* * 13 * *"))

    assert preview(trigger, NOW, 1) == [datetime(2027, 8, 13, 7, tzinfo=UTC)]


def test_all_of_may_begin_within_a_millisecond() -> None:
    trigger = AllOf(Every(2, start=NOW), Every(3, start=NOW))

    assert trigger.next_after(NOW - timedelta(microseconds=1)) == NOW
    assert trigger.next_after(NOW + timedelta(microseconds=1)) == NOW + 6 * SECOND


def test_start_and_end_of_the_whole_bound_the_parts() -> None:
    for kind in (AnyOf, AllOf):
        trigger = kind(Every(2), Every(4), start=NOW + 2 * SECOND, end=NOW + 12 * SECOND)

        assert set(preview(trigger, NOW - SECOND, 99)) <= set(seconds(*range(2, 13)))


def test_the_parts_anchored_at_one_moment_meet_on_their_grids() -> None:
    trigger = AnyOf(Every(60), AllOf(Every(60), Every(90))).anchored(NOW)

    assert preview(trigger, NOW, 2) == seconds(60, 120)


MEETINGS: dict[str, tuple[AllOf, datetime | None]] = {
    "grids that never meet": (AllOf(Every(2, start=NOW), Every(2, start=NOW + SECOND)), None),
    "grids that meet once in many centuries": (AllOf(Every(86_399.999, start=NOW), Every(86_399.998)), None),
    "grids that are nearly alike": (AllOf(Every(1.001, start=NOW), Every(1.002, start=NOW)), NOW + 1003.002 * SECOND),
    "hours and a grid of 3,599 s": (
        AllOf(Every(3599), Cron("0 * * * *")),
        datetime(2027, 1, 26, 5, tzinfo=UTC),
    ),
    "a minute and 60.001 s": (AllOf(Every(60.001), Cron("* * * * *")), datetime(2026, 12, 5, 0, 19, tzinfo=UTC)),
    "two days that differ": (AllOf(Cron("0 1 * * *"), Cron("0 2 * * *")), None),
    "odd and even minutes": (AllOf(Cron("1-59/2 * * * *"), Cron("*/2 * * * *")), None),
    "a day and a grid of 86,399 s": (AllOf(Every(86_399), Cron("0 0 * * *")), None),
    "sixteen crontabs": (AllOf(*(Cron(f"{minute} * * * *") for minute in range(16))), None),
    "sixteen in zones": (AllOf(*(Cron(f"{minute} 1 * * *", zone="Europe/Berlin") for minute in range(16))), None),
    "a year that has passed": (AllOf(Cron(year=2020), Cron("* * * * *")), None),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_whether_there_is_a_meeting_is_found_out_within_a_bound(name: str) -> None:
    trigger, expected = MEETINGS[name]
    began = time.thread_time()

    found = trigger.next_after(NOW)

    assert time.thread_time() - began < 0.1
    assert found == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (AnyOf, "at least two"),
        (lambda: AllOf(Every(2)), "at least two"),
        (lambda: AllOf(*[Every(2)] * 17), "17: is more than 16 parts"),
        (lambda: AnyOf(AnyOf(*[Every(2)] * 9), AnyOf(*[Every(2)] * 9)), "18: is more than 16 parts"),
        (lambda: AnyOf(Every(2), AnyOf(Every(2), AnyOf(Every(2), Every(3)))), "4: is more than 3 levels"),
        (lambda: AllOf(Every(2), AllOf(Every(2), Every(3))), "2: is more than one AllOf"),
        (lambda: AnyOf(Every(2), "every 3 s"), "parts='every 3 s': is not a trigger"),
        (lambda: AnyOf(Every(2), Every(3, jitter=1)), "a jitter of its own"),
        (lambda: AllOf(Every(2), Every(3), start=NOW, end=NOW - SECOND), "end=.*is before start"),
    ],
)
def test_trees_that_make_no_sense_or_too_much_work_are_refused(make: Callable[[], Trigger], words: str) -> None:
    with pytest.raises(TriggerInvalid, match=words):
        make()


triggers = st.sampled_from(
    [
        Every(7),
        Every(86_400, start=NOW - timedelta(days=30)),
        Cron("*/5 * * * *"),
        Cron("0 9 * * mon", zone="America/New_York"),
        Cron("30 2 * * *", zone="Europe/Berlin"),
        Cron(month=2, day="last"),
        At(NOW - timedelta(days=3)),
        AnyOf(Cron("*/20 3 * * *"), Every(3600, start=NOW)),
        AllOf(Every(3), Every(7)),
    ]
)


@settings(max_examples=150, deadline=None)
@given(triggers, st.integers(0, 400 * 86_400), st.integers(0, 400 * 86_400))
def test_the_latest_occurrence_is_one_with_none_between_it_and_the_moment(
    trigger: Trigger, back: int, window: int
) -> None:
    moment = NOW - back * SECOND
    since = moment - window * SECOND

    found = latest_until(trigger, moment, since)

    if found is None:
        following = trigger.next_after(since - timedelta(milliseconds=1))
        assert following is None or following > moment
    else:
        assert since <= found <= moment
        assert trigger.next_after(found - timedelta(milliseconds=1)) == found
        following = trigger.next_after(found)
        assert following is None or following > moment


@settings(max_examples=100, deadline=None)
@given(triggers, st.integers(0, 400 * 86_400), st.integers(0, 10**6))
def test_a_later_question_never_has_an_earlier_answer(trigger: Trigger, back: int, later: int) -> None:
    moment = NOW - back * SECOND
    first, second = trigger.next_after(moment), trigger.next_after(moment + later * SECOND)

    assert second is None or (first is not None and first <= second)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Apia"])
def test_a_question_from_the_end_of_the_calendar_has_no_answer(zone: str) -> None:
    daily, last = Cron("0 0 * * *", zone=zone), datetime.max.replace(tzinfo=UTC)
    for trigger in (daily, AllOf(daily, Every(60)), AnyOf(daily, Every(60))):
        assert trigger.next_after(last) is None
        assert trigger.next_after(datetime(2201, 1, 1, tzinfo=UTC)) is None


def test_jitter_puts_off_by_less_than_its_length_and_the_same_everywhere() -> None:
    trigger = Every(60, start=NOW, jitter=10)
    occurrences = preview(trigger, NOW - SECOND, 200)

    delays = [(fires_at(trigger, one, "report") - one) / SECOND for one in occurrences]

    assert delays == [(fires_at(trigger, one, "report") - one) / SECOND for one in occurrences]
    assert delays != [(fires_at(trigger, one, "other") - one) / SECOND for one in occurrences]
    assert 0 <= min(delays) < 1
    assert 9 < max(delays) <= 10
    assert 4 < mean(delays) < 6


def test_jitter_never_adds_up() -> None:
    trigger = Every(60, start=NOW, jitter=10)
    occurrence, last = NOW, NOW
    for _ in range(1000):
        last = fires_at(trigger, occurrence, "report")
        following = trigger.next_after(occurrence)
        assert following is not None
        occurrence = following

    assert timedelta() <= last - (NOW + 999 * 60 * SECOND) <= 10 * SECOND


def test_jitter_keeps_the_order_and_stays_before_the_end() -> None:
    trigger = Every(2, start=NOW, end=NOW + 100 * SECOND, jitter=3600)
    occurrences = preview(trigger, NOW - SECOND, 99)

    firing = [fires_at(trigger, one, "report") for one in occurrences]

    assert all(before < after for before, after in zip(firing, occurrences[1:], strict=False))
    assert firing[-1] == NOW + 100 * SECOND


def test_without_jitter_an_occurrence_fires_at_its_moment() -> None:
    assert fires_at(Every(60, start=NOW), NOW, "report") == NOW


@pytest.mark.parametrize("count", [-1, 1001, 1.5, True, "5"])
def test_a_preview_is_of_a_bounded_number_of_occurrences(count: int) -> None:
    with pytest.raises(TriggerInvalid, match="count="):
        preview(Every(60), NOW, count)
