"""Random crontabs, evaluated by this package and by cronsim, an independent implementation, and by croniter itself.

Some hundreds of expressions in each run (CALLBOARD_TEST_CRON_EXAMPLES), ten thousand by tests/soak. What is not drawn
here is where the three differ; each difference has a test of its own at the end, and its reason among the decisions of
DESIGN.md.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from callboard.runtime.triggers import Cron, Daylight, TriggerInvalid, preview

EXAMPLES = int(os.environ.get("CALLBOARD_TEST_CRON_EXAMPLES", "300"))
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
RANGES = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}
NAMES = {"month": "jan feb mar apr may jun jul aug sep oct nov dec", "weekday": "sun mon tue wed thu fri sat"}
some = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
many = settings(some, max_examples=10_000)


@st.composite
def items(draw: st.DrawFn, field: str) -> str:
    low, high = RANGES[field]
    first = draw(st.integers(low, high))
    last = draw(st.integers(low, high))
    step = draw(st.integers(1, high))
    kinds = [str(first), f"{min(first, last)}-{max(first, last)}", f"{min(first, last)}-{max(first, last)}/{step}"]
    if first == last:
        kinds = kinds[:1]
    if field in NAMES:
        kinds.append(NAMES[field].split()[first - low])
    if field != "weekday":
        kinds.append(f"{first}/{step}" if first < high else str(first))
    return draw(st.sampled_from(kinds))


@st.composite
def fields(draw: st.DrawFn, field: str) -> str:
    kind = draw(st.sampled_from(("star", "star", "step", "list")))
    if kind == "star":
        return "*"
    if kind == "step":
        return f"*/{draw(st.integers(1, RANGES[field][1]))}"
    return ",".join(draw(st.lists(items(field), min_size=1, max_size=4)))


@st.composite
def days(draw: st.DrawFn) -> tuple[str, str]:
    """Day of month and weekday. Both are restricted only where neither begins with a star."""
    match draw(st.sampled_from(("any", "day", "weekday", "either", "last", "nth"))):
        case "any":
            return "*", "*"
        case "day":
            return draw(fields("day")), "*"
        case "weekday":
            return "*", draw(fields("weekday"))
        case "last":
            return draw(st.sampled_from(("L", "L,15", "1,L"))), "*"
        case "nth":
            return "*", f"{draw(st.integers(0, 7))}#{draw(st.integers(1, 5))}"
        case _:
            chosen = draw(fields("day")), draw(fields("weekday"))
            assume(not any(one.startswith("*") for one in chosen))
            return chosen


@st.composite
def expressions(draw: st.DrawFn) -> tuple[list[str], str | None]:
    """Five fields, and the seconds or None."""
    day, weekday = draw(days())
    five = [draw(fields("minute")), draw(fields("hour")), day, draw(fields("month")), weekday]
    return five, draw(st.one_of(st.none(), fields("second")))


# Half of the moments lie in the two days before a change of the clocks in one of the zones.
CHANGES = [datetime(2027, 3, 28), datetime(2027, 10, 31), datetime(2027, 3, 14), datetime(2027, 11, 7)]
CHANGES += [datetime(2027, 4, 3), datetime(2027, 10, 2)]
moments = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2036, 1, 1)),
    st.builds(
        lambda change, seconds: change + timedelta(hours=12) - timedelta(seconds=seconds),
        st.sampled_from(CHANGES),
        st.integers(0, 2 * 86_400),
    ),
).map(lambda moment: moment.replace(microsecond=0, tzinfo=UTC))


def made(five: list[str], seconds: str | None, zone: str, daylight: Daylight) -> Cron:
    expression = " ".join(five if seconds is None else [*five, seconds])
    try:
        return Cron(expression, zone=zone, daylight=daylight)
    except TriggerInvalid as error:
        assume("never or hardly ever" not in error.reason)
        raise


@some
@given(expressions(), st.sampled_from(ZONES), moments)
def test_cronsim_finds_the_same_occurrences(
    expression: tuple[list[str], str | None], zone: str, moment: datetime
) -> None:
    compare_with_cronsim(expression, zone, moment)


@pytest.mark.soak
@many
@given(expressions(), st.sampled_from(ZONES), moments)
def test_cronsim_finds_the_same_occurrences_of_ten_thousand_expressions(
    expression: tuple[list[str], str | None], zone: str, moment: datetime
) -> None:
    compare_with_cronsim(expression, zone, moment)


def compare_with_cronsim(expression: tuple[list[str], str | None], zone: str, moment: datetime) -> None:
    five, seconds = expression
    fixed = seconds is None and not five[0].startswith("*") and not five[1].startswith("*")
    daylight = Daylight.create(missing="shift" if fixed else "skip", repeated="first" if fixed else "both")
    local = moment.astimezone(ZoneInfo(zone))
    assume(not local.fold)  # from there cronsim goes back (see the differences below)
    trigger = made(five, seconds, zone, daylight)

    reference = CronSim(" ".join(five if seconds is None else [seconds, *five]), local)

    ours, theirs = preview(trigger, moment, 4), [next(reference).astimezone(UTC) for _ in range(4)]
    # On a day whose clocks move by half an hour, cronsim takes steps of an hour (see the differences below).
    assume(fixed or not any(moved_by_half_an_hour(one, zone) for one in (*ours, *theirs)))
    assert ours == theirs


def moved_by_half_an_hour(moment: datetime, zone: str) -> bool:
    """Within the last day."""
    offset, before = (one.astimezone(ZoneInfo(zone)).utcoffset() for one in (moment, moment - timedelta(days=1)))
    return offset is not None and before is not None and (offset - before) % timedelta(hours=1) != timedelta()


@some
@given(expressions(), moments)
def test_croniter_finds_the_same_occurrences(expression: tuple[list[str], str | None], moment: datetime) -> None:
    five, seconds = expression
    trigger = made(five, seconds, "UTC", Daylight())

    reference = croniter(trigger.expression or "", moment, max_years_between_matches=10)

    assert preview(trigger, moment, 4) == [reference.get_next(datetime) for _ in range(4)]


@settings(some, max_examples=max(50, EXAMPLES // 5))
@given(st.integers(1, 31), st.sets(st.integers(1, 12), min_size=1, max_size=3), moments)
def test_croniter_finds_the_same_nearest_workdays(day: int, months: set[int], moment: datetime) -> None:
    trigger = Cron(f"0 12 {day}W {','.join(map(str, months))} *")

    reference = croniter(trigger.expression or "", moment)

    assert preview(trigger, moment, 4) == [reference.get_next(datetime) for _ in range(4)]


# The differences, one by one.

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)  # a Sunday


def by_cronsim(expression: str, moment: datetime, count: int) -> list[datetime]:
    reference = CronSim(expression, moment)
    return [next(reference).astimezone(UTC) for _ in range(count)]


def by_croniter(expression: str, moment: datetime, count: int) -> list[datetime]:
    reference = croniter(expression, moment)
    return [reference.get_next(datetime).astimezone(UTC) for _ in range(count)]


def test_a_starred_step_of_days_and_a_weekday_are_one_enough_of_the_two_but_both_for_cronsim() -> None:
    expression = "0 0 */10 * 1"

    ours = preview(Cron(expression), NOON, 3)

    assert [day.day for day in ours] == [2, 9, 11]
    assert ours == by_croniter(expression, NOON, 3)
    assert [day.day for day in by_cronsim(expression, NOON, 1)] == [11]


def test_steps_from_a_weekday_end_on_saturday_but_on_the_next_sunday_for_cronsim() -> None:
    expression = "0 0 * * 3/2"

    ours = preview(Cron(expression), NOON, 3)

    assert [day.strftime("%a") for day in ours] == ["Wed", "Fri", "Wed"]
    assert ours == by_croniter(expression, NOON, 3)
    assert [day.strftime("%a") for day in by_cronsim(expression, NOON, 3)] == ["Wed", "Fri", "Sun"]


def test_seconds_are_the_last_field_but_the_first_for_cronsim() -> None:
    assert preview(Cron("0 13 * * * 30"), NOON, 1) == [datetime(2026, 3, 1, 13, 0, 30, tzinfo=UTC)]
    assert preview(Cron("0 13 * * * 30"), NOON, 1) == by_cronsim("30 0 13 * * *", NOON, 1)


def test_a_fixed_time_in_a_repeated_hour_occurs_once_but_twice_for_croniter() -> None:
    evening = datetime(2027, 10, 30, 20, tzinfo=ZoneInfo("Europe/Berlin"))

    ours = preview(Cron("30 2 * * *", zone="Europe/Berlin"), evening, 2)

    assert [moment.day for moment in ours] == [31, 1]
    assert ours == by_cronsim("30 2 * * *", evening, 2)
    assert [moment.day for moment in by_croniter("30 2 * * *", evening, 2)] == [31, 31]


def test_every_second_hour_occurs_in_the_missing_hour_too_but_not_for_cronsim() -> None:
    evening = datetime(2027, 3, 27, 23, tzinfo=ZoneInfo("Europe/Berlin"))

    ours = preview(Cron("0 */2 * * *", zone="Europe/Berlin"), evening, 3)

    assert [moment.hour for moment in ours] == [23, 1, 2]  # 00:00 and, for 02:00, 03:00; 04:00
    assert [moment.hour for moment in by_cronsim("0 */2 * * *", evening, 2)] == [23, 2]


def test_minutes_of_a_repeated_hour_that_is_named_occur_once_but_twice_for_cronsim() -> None:
    evening = datetime(2027, 10, 30, 23, tzinfo=ZoneInfo("Europe/Berlin"))

    ours = preview(Cron("*/30 2 * * *", zone="Europe/Berlin"), evening, 3)

    assert [(moment.day, moment.hour, moment.minute) for moment in ours] == [(31, 0, 0), (31, 0, 30), (1, 1, 0)]
    reference = by_cronsim("*/30 2 * * *", evening, 4)
    assert [(moment.day, moment.hour) for moment in reference] == [(31, 0), (31, 0), (31, 1), (31, 1)]


def test_a_seconds_field_does_not_make_a_named_hour_occur_twice_as_it_does_for_cronsim() -> None:
    evening = datetime(2027, 10, 30, 23, tzinfo=ZoneInfo("Europe/Berlin"))

    ours = preview(Cron("30 2 * * * 0", zone="Europe/Berlin"), evening, 2)

    assert [moment.day for moment in ours] == [31, 1]
    assert [moment.day for moment in by_cronsim("0 30 2 * * *", evening, 2)] == [31, 31]


def test_an_hour_after_a_move_of_half_an_hour_is_whole_but_halved_for_cronsim() -> None:
    evening = datetime(2027, 10, 2, 23, tzinfo=ZoneInfo("Australia/Lord_Howe"))

    ours = preview(Cron("* 3 * * *", zone="Australia/Lord_Howe"), evening, 1)

    assert ours == [datetime(2027, 10, 3, 3, tzinfo=ZoneInfo("Australia/Lord_Howe"))]
    theirs = by_cronsim("* 3 * * *", datetime(2027, 10, 2, 22, 30, tzinfo=ZoneInfo("Australia/Lord_Howe")), 1)
    assert theirs[0] == ours[0] + timedelta(minutes=30)


def test_a_search_from_the_second_of_two_equal_hours_goes_on_but_goes_back_for_cronsim() -> None:
    second_pass = datetime(2027, 10, 31, 2, 10, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)

    ours = preview(Cron("30 2 * * *", zone="Europe/Berlin"), second_pass, 1)

    assert ours == [datetime(2027, 11, 1, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))]
    theirs = by_cronsim("30 2 * * *", second_pass, 1)
    assert theirs[0] < second_pass.astimezone(UTC)


def test_a_range_that_wraps_is_read_as_croniter_does_and_refused_by_cronsim() -> None:
    assert preview(Cron("0 0 * * sat-mon"), NOON, 3) == by_croniter("0 0 * * sat-mon", NOON, 3)
    with pytest.raises(Exception, match="Bad day-of-week"):
        CronSim("0 0 * * sat-mon", NOON)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 9-9 * * *", "'9-9' is a range of one value"),
        ("0 0 * * sun-sun", "depending on who reads it"),
        ("0 0 1-7 * 1#1", "#, L or W beside another"),
        ("0 0 1 * L5", "#, L or W beside another"),
        ("0 0 15W * 1", "#, L or W beside another"),
        ("H * * * *", "write them out"),
        ("R * * * *", "write them out"),
        ("0 0 1 1 * 0 2030", "7 fields"),
    ],
)
def test_what_croniter_reads_in_a_way_of_its_own_is_refused(expression: str, words: str) -> None:
    with pytest.raises(TriggerInvalid, match="expression=") as refused:
        Cron(expression)

    assert words in refused.value.reason
    assert refused.value.value == expression
