"""Retry decisions: values in, milliseconds or None out."""

from __future__ import annotations

import math
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.runtime.duration import MAX_SECONDS, DurationInvalid, seconds_to_ms
from callboard.runtime.errors import InvalidJob
from callboard.runtime.results import ErrorInfo, RemoteFailure
from callboard.runtime.retry import MAX_MS, Backoff, BackoffKind, Retry, RetryInvalid, RetryPolicy


class Transient(Exception):
    pass


class Worse(Transient):
    pass


ERROR = ErrorInfo(type="X", message="x")
NO_JITTER = Backoff.exponential(1, factor=2, cap=60, jitter=0)


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [(1, 1000), (0, 0), (0.1, 100), (1.1, 1100), (1e-9, 1), (timedelta(minutes=2), 120_000), (MAX_SECONDS, MAX_MS)],
)
def test_seconds_become_whole_milliseconds(value: Any, milliseconds: int) -> None:
    assert seconds_to_ms(value, "delay") == milliseconds


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "not a number"),
        (math.inf, "ten years"),
        (-math.inf, "negative"),
        (-0.001, "-0.001"),
        (timedelta(seconds=-1), "negative"),
        (True, "bool"),
        ("5", "'5'"),
        (None, "NoneType"),
        (10**400, "ten years"),
        (MAX_SECONDS + 1, "ten years"),
    ],
)
def test_a_duration_that_is_none_is_refused_with_its_name_and_value(value: Any, words: str) -> None:
    with pytest.raises(DurationInvalid, match="delay=") as caught:
        seconds_to_ms(value, "delay")
    assert words in str(caught.value)
    assert isinstance(caught.value, InvalidJob)


def test_an_exponential_backoff_doubles_up_to_its_cap() -> None:
    delays = [NO_JITTER.delay_ms(failures, Random(1)) for failures in range(1, 9)]
    assert delays == [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]


def test_a_linear_backoff_grows_by_its_delay_up_to_its_cap() -> None:
    backoff = Backoff.linear(10, cap=25, jitter=0)
    assert [backoff.delay_ms(failures, Random(1)) for failures in (1, 2, 3, 10**6)] == [10_000, 20_000, 25_000, 25_000]


def test_a_fixed_backoff_longer_than_ten_minutes_is_not_capped() -> None:
    assert Backoff.fixed(3600).delay_ms(7, Random(1)) == 3_600_000


def test_a_first_delay_longer_than_the_default_cap_raises_the_cap() -> None:
    assert Backoff.exponential(3600, jitter=0).delay_ms(3, Random(1)) == 3_600_000


def test_the_default_is_exponential_from_one_second_to_ten_minutes_with_half_jitter() -> None:
    default = RetryPolicy.create().backoff
    assert default == Backoff.exponential(1, factor=2, cap=600, jitter=0.5)
    assert 300_000 <= default.delay_ms(10**6, Random(3)) <= 600_000


def test_full_jitter_takes_anything_down_to_nothing_away() -> None:
    backoff = Backoff.fixed(10, jitter="full")
    delays = [backoff.delay_ms(1, random) for random in [Random(7)] for _ in range(1000)]
    assert min(delays) < 100
    assert max(delays) > 9900
    assert max(delays) <= 10_000


@given(
    kind=st.sampled_from(list(BackoffKind)),
    base=st.integers(0, MAX_MS),
    factor=st.floats(1, 1000),
    failures=st.integers(0, 10**6),
    jitter=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_a_delay_is_never_negative_nor_above_ten_years(
    kind: BackoffKind, base: int, factor: float, failures: int, jitter: float, seed: int
) -> None:
    backoff = Backoff(kind=kind, base_ms=base, factor=factor, cap_ms=MAX_MS, jitter=jitter)
    delay = backoff.delay_ms(failures, Random(seed))
    assert isinstance(delay, int)
    assert 0 <= delay <= MAX_MS


@pytest.mark.parametrize(
    "form",
    [
        5,
        0,
        0.25,
        {"type": "fixed", "delay": 3},
        {"type": "fixed", "delay": 3, "jitter": 0.5},
        {"type": "linear"},
        {"type": "linear", "delay": 2, "cap": 30, "jitter": 0},
        {"type": "exponential"},
        {"type": "exponential", "delay": 0.5, "factor": 3, "cap": 90, "jitter": "full"},
    ],
)
def test_a_backoff_comes_back_from_its_wire_form(form: Any) -> None:
    backoff = Backoff.parse(form)
    assert Backoff.parse(backoff.to_json()) == backoff


def test_a_number_is_a_fixed_delay_without_jitter() -> None:
    backoff = Backoff.parse(5)
    assert [backoff.delay_ms(failures, Random(2)) for failures in (1, 2, 9)] == [5000, 5000, 5000]
    assert backoff.to_json() == 5


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("5", "backoff"),
        (-1, "backoff"),
        (True, "backoff"),
        (None, "backoff"),
        ([1], "backoff"),
        ({}, "backoff.type"),
        ({"type": "quadratic"}, "backoff.type"),
        ({"type": ["fixed"]}, "backoff.type"),
        ({"type": "fixed"}, "backoff.delay"),
        ({"type": "fixed", "delay": "1"}, "backoff.delay"),
        ({"type": "fixed", "delay": 1, "factor": 2}, "backoff.factor"),
        ({"type": "linear", "speed": 2}, "backoff.speed"),
        ({"type": "exponential", "factor": 0.5}, "backoff.factor"),
        ({"type": "exponential", "factor": math.nan}, "backoff.factor"),
        ({"type": "exponential", "factor": "2"}, "backoff.factor"),
        ({"type": "exponential", "jitter": 1.5}, "backoff.jitter"),
        ({"type": "exponential", "jitter": True}, "backoff.jitter"),
        ({"type": "exponential", "delay": 10, "cap": 5}, "backoff.cap"),
        ({"type": "exponential", "cap": math.inf}, "backoff.cap"),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused_with_its_path(form: Any, path: str) -> None:
    with pytest.raises(RetryInvalid) as caught:
        Backoff.parse(form)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("retries", [-1, 1.0, True, "3", None, 10**6 + 1])
def test_a_number_of_retries_that_makes_no_sense_is_refused(retries: Any) -> None:
    with pytest.raises(RetryInvalid, match="retries: "):
        RetryPolicy.create(retries=retries)


@pytest.mark.parametrize("classes", [int, "ValueError", [ValueError, "x"], ValueError("an instance")])
def test_retry_on_takes_exception_classes_only(classes: Any) -> None:
    with pytest.raises(RetryInvalid, match="retry_on: "):
        RetryPolicy.create(retry_on=classes)


def test_retries_are_used_up_one_by_one() -> None:
    policy = RetryPolicy.create(retries=2, backoff=7)
    assert [policy.decide(ValueError(), failures, Random(1)) for failures in (1, 2, 3)] == [7000, 7000, None]


def test_without_retries_the_first_failure_is_final() -> None:
    assert RetryPolicy.create().decide(ValueError(), 1, Random(1)) is None


def test_only_errors_of_retry_on_and_their_subclasses_are_retried() -> None:
    policy = RetryPolicy.create(retries=5, backoff=1, retry_on=Transient)
    assert policy.decide(Worse(), 1, Random(1)) == 1000
    assert policy.decide(ValueError(), 1, Random(1)) is None


def test_give_up_on_wins_over_retry_on() -> None:
    policy = RetryPolicy.create(retries=5, backoff=1, retry_on=[Transient], give_up_on=[Worse])
    assert policy.decide(Transient(), 1, Random(1)) == 1000
    assert policy.decide(Worse(), 1, Random(1)) is None


def test_the_error_of_another_process_is_matched_by_the_names_of_its_classes() -> None:
    policy = RetryPolicy.create(retries=5, backoff=1, retry_on=[Transient], give_up_on=[Worse])
    transient = f"{Transient.__module__}.{Transient.__qualname__}"
    worse = f"{Worse.__module__}.{Worse.__qualname__}"
    assert policy.decide(RemoteFailure(ERROR, class_names=(transient,)), 1, Random(1)) == 1000
    assert policy.decide(RemoteFailure(ERROR, class_names=(worse, transient)), 1, Random(1)) is None
    assert policy.decide(RemoteFailure(ERROR, class_names=("other.Transient",)), 1, Random(1)) is None


def test_a_retry_asked_for_by_the_task_overrides_the_backoff_but_not_the_number_of_retries() -> None:
    policy = RetryPolicy.create(retries=1, backoff=60, retry_on=[Transient], give_up_on=[Exception])
    assert policy.decide(Retry(after=2.5), 1, Random(1)) == 2500
    assert policy.decide(Retry(after=timedelta(0)), 1, Random(1)) == 0
    assert policy.decide(Retry(reason="not yet"), 1, Random(1)) == 60_000
    assert policy.decide(Retry(after=2.5), 2, Random(1)) is None


def test_a_retry_after_a_nonsensical_time_is_refused_where_it_is_raised() -> None:
    with pytest.raises(DurationInvalid, match="after="):
        Retry(after=-1)


def test_a_number_too_long_to_be_printed_is_refused_like_any_other() -> None:
    with pytest.raises(DurationInvalid, match="bits"):
        seconds_to_ms(10**9999, "delay")
