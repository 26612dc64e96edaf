"""Crontabs and named fields: what they mean, what is refused, and that no expression takes long."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.runtime.triggers import Cron, Tally, TriggerInvalid, preview

NOW = datetime(2026, 11, 22, 5, 17, 30, tzinfo=UTC)  # a Sunday


def shown(trigger: Cron, count: int, after: datetime = NOW) -> list[str]:
    return [moment.strftime("%a %Y-%m-%d %H:%M:%S") for moment in preview(trigger, after, count)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/5 * * * *", ["Sun 2026-11-22 05:20:00", "Sun 2026-11-22 05:25:00"]),
        ("0 9 * * 1-5", ["Mon 2026-11-23 09:00:00", "Tue 2026-11-24 09:00:00"]),
        ("0 0 * * 0", ["Sun 2026-11-29 00:00:00", "Sun 2026-12-06 00:00:00"]),
        ("0 0 * * 7", ["Sun 2026-11-29 00:00:00", "Sun 2026-12-06 00:00:00"]),
        ("0 2 * * SUN", ["Sun 2026-11-29 02:00:00", "Sun 2026-12-06 02:00:00"]),
        ("0 7 * feb mon", ["Mon 2027-02-01 07:00:00", "Mon 2027-02-08 07:00:00"]),
        ("@daily", ["Mon 2026-11-23 00:00:00", "Tue 2026-11-24 00:00:00"]),
        ("@hourly", ["Sun 2026-11-22 06:00:00", "Sun 2026-11-22 07:00:00"]),
        ("0 0 L * *", ["Mon 2026-11-30 00:00:00", "Thu 2026-12-31 00:00:00"]),
        ("0 0 * * fri#2", ["Fri 2026-12-11 00:00:00", "Fri 2027-01-08 00:00:00"]),
        ("0 0 * * L5", ["Fri 2026-11-27 00:00:00", "Fri 2026-12-25 00:00:00"]),
        ("0 0 15W * *", ["Tue 2026-12-15 00:00:00", "Fri 2027-01-15 00:00:00"]),
        ("0 0 13 * 5", ["Fri 2026-11-27 00:00:00", "Fri 2026-12-04 00:00:00"]),
        ("0 0 29 2 *", ["Tue 2028-02-29 00:00:00", "Sun 2032-02-29 00:00:00"]),
        ("* * * * * */20", ["Sun 2026-11-22 05:17:40", "Sun 2026-11-22 05:18:00"]),
        ("59/15 * * * *", ["Sun 2026-11-22 05:59:00", "Sun 2026-11-22 06:59:00"]),
    ],
)
def test_a_crontab_means_what_cron_takes_it_for(expression: str, expected: list[str]) -> None:
    assert shown(Cron(expression), 2) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"hour": "0-23", "minute": "1"}, ["Sun 2026-11-22 06:01:00", "Sun 2026-11-22 07:01:00"]),
        (
            {"day_of_week": "mon,wed,fri", "hour": "8", "minute": "1", "second": "5"},
            ["Mon 2026-11-23 08:01:05", "Wed 2026-11-25 08:01:05"],
        ),
        ({"day_of_week": "mon", "hour": "1"}, ["Mon 2026-11-23 01:00:00", "Mon 2026-11-30 01:00:00"]),
        ({"day_of_week": 1}, ["Mon 2026-11-23 00:00:00", "Mon 2026-11-30 00:00:00"]),
        ({"day_of_week": 7}, ["Sun 2026-11-29 00:00:00", "Sun 2026-12-06 00:00:00"]),
        ({"day_of_week": "sat-mon"}, ["Mon 2026-11-23 00:00:00", "Sat 2026-11-28 00:00:00"]),
        ({"day_of_week": "mon-sun/2"}, ["Mon 2026-11-23 00:00:00", "Wed 2026-11-25 00:00:00"]),
        ({"day": "last"}, ["Mon 2026-11-30 00:00:00", "Thu 2026-12-31 00:00:00"]),
        ({"day": "2nd fri"}, ["Fri 2026-12-11 00:00:00", "Fri 2027-01-08 00:00:00"]),
        ({"day": "last sun, 5th mon"}, ["Sun 2026-11-29 00:00:00", "Mon 2026-11-30 00:00:00"]),
        ({"day": "13", "day_of_week": "fri"}, ["Fri 2027-08-13 00:00:00", "Fri 2028-10-13 00:00:00"]),
        ({"month": "nov-feb", "day": 1}, ["Tue 2026-12-01 00:00:00", "Fri 2027-01-01 00:00:00"]),
        ({"month": "*/6"}, ["Fri 2027-01-01 00:00:00", "Thu 2027-07-01 00:00:00"]),
        ({"year": "2030,2040"}, ["Tue 2030-01-01 00:00:00", "Sun 2040-01-01 00:00:00"]),
        ({"year": "2026", "month": 12, "day": 24, "hour": 18}, ["Thu 2026-12-24 18:00:00"]),
        ({"week": 53, "day_of_week": "thu"}, ["Thu 2026-12-31 00:00:00", "Thu 2032-12-30 00:00:00"]),
        ({"second": "*/25"}, ["Sun 2026-11-22 05:17:50", "Sun 2026-11-22 05:18:00"]),
        ({"minute": "50/4"}, ["Sun 2026-11-22 05:50:00", "Sun 2026-11-22 05:54:00"]),
    ],
)
def test_named_fields_mean_what_the_reference_takes_them_for(fields: dict[str, Any], expected: list[str]) -> None:
    assert shown(Cron(**fields), 2) == expected


def test_an_expression_is_read_in_its_zone() -> None:
    assert shown(Cron("0 9 * * *", zone="Asia/Tokyo"), 1) == ["Mon 2026-11-23 00:00:00"]
    assert Cron("0 9 * * *", zone=ZoneInfo("Asia/Tokyo")) == Cron("0 9 * * *", zone="Asia/Tokyo")


def test_start_and_end_bound_the_occurrences() -> None:
    start, end = NOW + timedelta(days=1), NOW + timedelta(days=3)

    assert shown(Cron("0 0 * * *", start=start, end=end), 9) == ["Tue 2026-11-24 00:00:00", "Wed 2026-11-25 00:00:00"]


def test_missed_occurrences_are_counted_up_to_a_limit() -> None:
    trigger = Cron("* * * * * *")

    assert trigger.count(NOW, NOW + timedelta(seconds=1000)) == Tally(count=1000)
    assert trigger.count(NOW, NOW + timedelta(days=3650)) == Tally(count=1000, exact=False)
    assert trigger.count(NOW, NOW + timedelta(days=3650), limit=5) == Tally(count=5, exact=False)


def by_days(month: set[int], weekdays: set[int], weeks: set[int], after: date) -> date:
    day = after + timedelta(days=1)
    while not (day.month in month and day.isoweekday() % 7 in weekdays and day.isocalendar().week in weeks):
        day += timedelta(days=1)
    return day


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.integers(1, 12), min_size=6),
    st.sets(st.integers(0, 6), min_size=1),
    st.sets(st.integers(1, 53), min_size=30),
    st.dates(date(2020, 1, 1), date(2060, 1, 1)),
)
def test_weeks_weekdays_and_months_all_hold(months: set[int], weekdays: set[int], weeks: set[int], after: date) -> None:
    fields = {"month": months, "day_of_week": weekdays, "week": weeks}
    trigger = Cron(hour=0, **{name: ",".join(map(str, values)) for name, values in fields.items()})

    found = trigger.next_after(datetime(after.year, after.month, after.day, tzinfo=UTC))

    assert found is not None
    assert found.date() == by_days(months, weekdays, weeks, after)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "expression=None: give it, or one of year"),
        ({"expression": "* * * * *", "hour": 1}, "expression=.*comes with hour"),
        ({"expression": 5}, "expression=5: wants a crontab expression"),
        ({"expression": ""}, "expression='': has 0 fields"),
        ({"expression": "* * * *"}, "has 4 fields"),
        ({"expression": "60 * * * *"}, "expression='60 .*out of range"),
        ({"expression": "* * 0 * *"}, "expression="),
        ({"expression": "*/0 * * * *"}, "expression="),
        ({"expression": "@reboot"}, "expression='@reboot'"),
        ({"expression": "0 0 31 2 *"}, "never or hardly ever"),
        ({"expression": "0 0 30,31 2 *"}, "never or hardly ever"),
        ({"month": 2, "day": 29, "day_of_week": "mon"}, "never or hardly ever"),
        ({"month": 6, "week": 1}, "never or hardly ever"),
        ({"year": 2027, "month": 2, "day": 29}, "never or hardly ever"),
        ({"hour": 24}, "hour='24': 24 is not from 0 to 23"),
        ({"hour": -1}, "hour=-1: is not from 0 to 23"),
        ({"hour": True}, "hour=True: wants an int or a string"),
        ({"hour": ""}, "hour='': '' is not"),
        ({"hour": "1,,2"}, "hour='1,,2'"),
        ({"hour": "*/0"}, "a step of 0"),
        ({"hour": "5-2"}, "ends before it begins"),
        ({"day_of_week": 8}, "day_of_week='8': 8 is not from 0 to 7"),
        ({"day_of_week": "moon"}, "'moon' is not a value"),
        ({"day": "6th fri"}, "day='6th fri'"),
        ({"day": "2nd moon"}, "day='2nd moon'"),
        ({"month": "last"}, "'last' is not a value"),
        ({"year": 1969}, "1969 is not from 1970 to 2199"),
        ({"expression": "* * * * *", "zone": "../../etc/passwd"}, "zone='../../etc/passwd': is not one of"),
        ({"expression": "* * * * *", "zone": "/etc/localtime"}, "zone='/etc/localtime'"),
        ({"expression": "* * * * *", "zone": "Europe/Nowhere"}, "zone='Europe/Nowhere'"),
        ({"expression": "* * * * *", "zone": "x\0y"}, "zone="),
        ({"expression": "* * * * *", "zone": 1}, "zone=1: wants the name"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(TriggerInvalid, match=words):
        Cron(**arguments)


BOMBS: dict[str, dict[str, Any]] = {
    "a list of 20,000": {"expression": ",".join(["1"] * 20_000) + " * * * *"},
    "65 items": {"expression": ",".join(["1"] * 65) + " * * * *"},
    "64 items": {"expression": ",".join(["1"] * 64) + " * * * *"},
    "ranges of ranges": {"expression": ",".join(["0-59"] * 40) + " * * * *"},
    "a million digits": {"expression": "9" * 1_000_000 + " * * * *"},
    "250 digits": {"expression": "9" * 245 + " * * * *"},
    "a long step": {"expression": "*/" + "9" * 240 + " * * * *"},
    "a long range": {"expression": "0-" + "9" * 240 + " * * * *"},
    "leading zeros": {"expression": "0" * 240 + "1 * * * *"},
    "an impossible date": {"expression": "0 0 31 2,4,6,9,11 *"},
    "an impossible weekday": {"expression": "0 0 * 2 *#5"},
    "a rare date": {"month": 2, "day": "5th mon"},
    "an impossible week": {"month": 7, "week": "1-20,40-53"},
    "years that never match": {"year": "1970-2199", "month": 2, "day": 30, "week": "1-52"},
    "wide spaces": {"expression": "\u3000*\u3000*\u3000*\u3000*\u3000*"},
    "other digits": {"expression": "\u0661 * * * *"},
    "many commas": {"expression": "," * 250},
    "many slashes": {"expression": "*" + "/1" * 120 + " * * * *"},
    "many dashes": {"hour": "1" + "-1" * 120},
    "many items by name": {"day": ",".join(["last fri"] * 20)},
    "many numbers by name": {"minute": ",".join(["1"] * 127)},
    "a long name": {"day": "last " + " " * 10**6 + "fri"},
    "a huge int": {"hour": 10**5000},
    "a long zone": {"expression": "* * * * *", "zone": "Europe/" * 100_000},
    "nothing but missing times": {"month": 3, "day": "last sun", "hour": 2, "minute": 30, "zone": "Europe/Berlin"},
}


@pytest.mark.parametrize("arguments", BOMBS.values(), ids=list(BOMBS))
def test_no_expression_takes_longer_than_fifty_milliseconds(arguments: dict[str, Any]) -> None:
    Cron("* * * * *", zone="Europe/Berlin")  # the list of zones is read once a process
    began = time.thread_time()

    with contextlib.suppress(TriggerInvalid):
        Cron(**arguments).next_after(NOW)

    assert time.thread_time() - began < 0.05


@settings(max_examples=300, deadline=None)
@given(
    st.text("0123456789*/,-#?@LWlwRH montuefrijandec\t", max_size=40),
    st.text("0123456789*/,-lastndfrimo ", max_size=20),
)
def test_whatever_is_written_is_read_or_refused(expression: str, field: str) -> None:
    for arguments in ({"expression": expression}, {"day": field}, {"month": field}, {"day_of_week": field}):
        try:
            trigger = Cron(**arguments)
        except TriggerInvalid:
            continue
        assert len(preview(trigger, NOW, 2)) == 2
