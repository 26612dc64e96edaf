from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from callboard.metadata.job import Deduplication
from callboard.runtime.errors import InvalidJob
from callboard.runtime.options import CallOptions, moment_to_ms, parse_deduplication, parse_priority
from callboard.runtime.retry import Backoff


def test_what_is_not_given_is_left_to_the_task() -> None:
    assert CallOptions.parse() == CallOptions()


def test_seconds_become_milliseconds() -> None:
    options = CallOptions.parse(delay=1.5, timeout=timedelta(minutes=1), ttl=60)
    assert (options.delay_ms, options.timeout_ms, options.ttl_ms) == (1500, 60_000, 60_000)


def test_a_backoff_is_parsed_and_retries_are_kept() -> None:
    options = CallOptions.parse(retries=0, backoff=2)
    assert (options.retries, options.backoff) == (0, Backoff.fixed(2))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"delay": -1}, "delay=-1: must not be negative"),
        ({"delay": "5"}, "delay='5': wants seconds"),
        ({"delay": True}, "delay=True: wants seconds"),
        ({"delay": float("nan")}, "delay=nan: is not a number of seconds"),
        ({"delay": 1e12}, "longer than ten years"),
        ({"delay": 1, "run_at": 5}, "give delay .1. or run_at .5., not both"),
        ({"run_at": datetime(2030, 1, 1)}, r"run_at=2030-01-01T00:00:00 has no time zone"),
        ({"run_at": "tomorrow"}, "run_at must be an aware datetime or Unix seconds, not 'tomorrow'"),
        ({"run_at": -5}, "run_at must be"),
        ({"run_at": datetime.fromisoformat("9999-12-31T23:59:59-12:00")}, "run_at=9999-.* the years 1 to 9999"),
        ({"run_at": datetime.fromisoformat("0001-01-01T00:00:00+14:00")}, "run_at=0001-.* the years 1 to 9999"),
        ({"run_at": datetime.max.replace(tzinfo=UTC)}, "run_at=9999-.* the years 1 to 9999"),
        ({"run_at": float("inf")}, "run_at must be"),
        ({"timeout": 0}, "timeout must be more than 0 seconds, not 0"),
        ({"ttl": 0}, "ttl must be more than 0 seconds, not 0"),
        ({"priority": 0}, "priority must be"),
        ({"retries": 1.5}, "retries: wants a whole number"),
        ({"backoff": {}}, r"backoff\.type"),
        ({"job_id": ""}, "job_id must not be empty"),
        ({"depends_on": []}, "depends_on is not supported yet"),
    ],
    ids=repr,
)
def test_an_option_that_makes_no_sense_is_named_with_its_value(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidJob, match=complaint):
        CallOptions.parse(**given)


@pytest.mark.parametrize("given", [{"meta": []}, {"meta": "x"}, {"deduplication": "d"}, {"job_id": 5}], ids=repr)
def test_an_option_of_the_wrong_kind_is_a_type_error(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(given))):
        CallOptions.parse(**given)


@pytest.mark.parametrize("value", range(1, 11))
def test_priorities_from_1_to_10_are_accepted(value: int) -> None:
    assert parse_priority(value) == value


@pytest.mark.parametrize("value", [0, 11, -1, 5.0, "5", None, True], ids=repr)
def test_other_priorities_are_refused(value: Any) -> None:
    with pytest.raises(InvalidJob, match="priority must be a whole number from 1"):
        parse_priority(value)


def test_a_deduplication_is_read_with_its_window_in_milliseconds() -> None:
    assert parse_deduplication({"id": "d"}) == Deduplication(id="d")
    assert parse_deduplication({"id": "customer:7", "ttl": 1.5, "extend": True, "replace": True}) == Deduplication(
        id="customer:7", ttl=1500, extend=True, replace=True
    )


@pytest.mark.parametrize("name", ["", 5, None, "a\nb", "x" * 257, "\ud800", ["d"]], ids=repr)
def test_a_deduplication_id_must_be_printable_text(name: Any) -> None:
    with pytest.raises(InvalidJob, match=r"deduplication\.id must be 1 to 256 bytes"):
        parse_deduplication({"id": name})


def test_a_moment_is_the_same_in_every_zone() -> None:
    here = datetime(2030, 6, 1, 12, 0, 0, 123_456, tzinfo=UTC)
    there = here.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert moment_to_ms(here, "run_at") == moment_to_ms(there, "run_at") == 1_906_545_600_123
    assert moment_to_ms(1_906_545_600.123, "run_at") == 1_906_545_600_123
