"""What daylight saving time does to a schedule, against an oracle that looks at every minute of the night."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.runtime.triggers import Cron, Daylight, TriggerInvalid, preview

# For each zone the change to and from daylight saving time of 2027, in UTC.
SPRING = {
    "Europe/Berlin": datetime(2027, 3, 28, 1, tzinfo=UTC),
    "America/New_York": datetime(2027, 3, 14, 7, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2027, 10, 2, 15, 30, tzinfo=UTC),
}
AUTUMN = {
    "Europe/Berlin": datetime(2027, 10, 31, 1, tzinfo=UTC),
    "America/New_York": datetime(2027, 11, 7, 6, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2027, 4, 3, 15, tzinfo=UTC),
}
NIGHTS = [(zone, change) for nights in (SPRING, AUTUMN) for zone, change in nights.items()]
MINUTE = timedelta(minutes=1)


def offset(zone: str, moment: datetime) -> timedelta:
    return moment.astimezone(ZoneInfo(zone)).utcoffset() or timedelta()


def readings(zone: str, moments: list[datetime]) -> list[str]:
    return [moment.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %z") for moment in moments]


@pytest.mark.parametrize(("zone", "change"), NIGHTS)
def test_the_clocks_change_when_this_module_says(zone: str, change: datetime) -> None:
    assert offset(zone, change - MINUTE) != offset(zone, change)


def by_minutes(
    zone: str, change: datetime, matches: Callable[[datetime], bool], missing: str, repeated: str
) -> list[datetime]:
    """All moments within a day of the change that show a matching reading, one by one."""
    before, after = offset(zone, change - MINUTE), offset(zone, change)
    found = set()
    for at in range(-24 * 60, 24 * 60):
        moment = change + at * MINUTE
        reading = (moment + offset(zone, moment)).replace(tzinfo=None)
        twice = change + after <= reading.replace(tzinfo=UTC) < change + before
        counts = not twice or repeated == "both" or (repeated == "second") == (moment >= change)
        if matches(reading) and counts:
            found.add(moment)
    left_out = (change + before).replace(tzinfo=None)
    while left_out < (change + after).replace(tzinfo=None):
        if matches(left_out) and missing == "shift":
            found.add(change)
        left_out += MINUTE
    return sorted(found)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NIGHTS),
    st.sets(st.integers(0, 4), min_size=1),
    st.sets(st.sampled_from([0, 1, 15, 29, 30, 31, 45, 59]), min_size=1),
    st.sampled_from(["shift", "skip"]),
    st.sampled_from(["first", "second", "both"]),
    st.integers(-400 * 60, 400 * 60),
)
def test_every_policy_has_the_occurrences_that_looking_at_each_minute_finds(
    night: tuple[str, datetime], hours: set[int], minutes: set[int], missing: str, repeated: str, seconds: int
) -> None:
    zone, change = night
    expression = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    trigger = Cron(expression, zone=zone, daylight=Daylight.create(missing=missing, repeated=repeated))
    asked = change + timedelta(seconds=seconds)

    expected = by_minutes(zone, change, lambda at: at.hour in hours and at.minute in minutes, missing, repeated)

    expected = [moment for moment in expected if moment > asked]
    assert preview(trigger, asked, len(expected)) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NIGHTS),
    st.sets(st.sampled_from([0, 10, 20, 30, 40, 50]), min_size=1),
    st.integers(-300, 300),
)
def test_what_runs_in_every_hour_keeps_its_rhythm(night: tuple[str, datetime], minutes: set[int], shift: int) -> None:
    zone, change = night
    trigger = Cron(f"{','.join(map(str, minutes))} * * * *", zone=zone)
    asked = change + shift * MINUTE

    expected = by_minutes(zone, change, lambda at: at.minute in minutes, "skip", "both")

    expected = [moment for moment in expected if moment > asked]
    assert preview(trigger, asked, len(expected)) == expected


@pytest.mark.parametrize(
    ("zone", "expression", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", ["27 02:30 +0100", "28 03:00 +0200", "29 02:30 +0200"]),
        ("America/New_York", "30 2 * * *", ["13 02:30 -0500", "14 03:00 -0400", "15 02:30 -0400"]),
        ("Australia/Lord_Howe", "15 2 * * *", ["02 02:15 +1030", "03 02:30 +1100", "04 02:15 +1100"]),
    ],
)
def test_a_time_that_does_not_exist_runs_at_the_shift(zone: str, expression: str, expected: list[str]) -> None:
    found = preview(Cron(expression, zone=zone), SPRING[zone] - timedelta(hours=36), 3)

    assert readings(zone, found) == expected


@pytest.mark.parametrize(
    ("zone", "expression", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", ["30 02:30 +0200", "31 02:30 +0200", "01 02:30 +0100"]),
        ("America/New_York", "30 1 * * *", ["06 01:30 -0400", "07 01:30 -0400", "08 01:30 -0500"]),
        ("Australia/Lord_Howe", "45 1 * * *", ["03 01:45 +1100", "04 01:45 +1100", "05 01:45 +1030"]),
    ],
)
def test_a_time_that_exists_twice_runs_once_at_the_first(zone: str, expression: str, expected: list[str]) -> None:
    found = preview(Cron(expression, zone=zone), AUTUMN[zone] - timedelta(hours=36), 3)

    assert readings(zone, found) == expected


def test_times_left_out_together_run_once_with_one_that_is_at_the_shift_itself() -> None:
    trigger = Cron("0,15,45 2,3 * * *", zone="Europe/Berlin")

    found = preview(trigger, SPRING["Europe/Berlin"] - MINUTE, 3)

    assert readings("Europe/Berlin", found) == ["28 03:00 +0200", "28 03:15 +0200", "28 03:45 +0200"]


def test_a_schedule_of_nothing_but_missing_times_that_are_skipped_has_no_occurrence() -> None:
    trigger = Cron(
        month=3, day="last sun", hour=2, minute=30, zone="Europe/Berlin", daylight=Daylight.create(missing="skip")
    )

    assert trigger.next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_a_day_that_a_zone_left_out_runs_at_the_shift() -> None:
    trigger = Cron("0 9 * * *", zone="Pacific/Apia")  # which had no 30 December 2011

    found = preview(trigger, datetime(2011, 12, 29, 0, tzinfo=UTC), 3)

    assert readings("Pacific/Apia", found) == ["29 09:00 -1000", "31 00:00 +1400", "31 09:00 +1400"]


@pytest.mark.parametrize("member", ["missing", "repeated"])
def test_an_unknown_policy_is_refused_by_name(member: str) -> None:
    with pytest.raises(TriggerInvalid, match=f"{member}='later': is not one of usual"):
        Daylight.create(**{member: "later"})
