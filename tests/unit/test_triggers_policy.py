"""What becomes of occurrences that are late or overlap."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.runtime.triggers import Admission, At, Cron, Every, Plan, Policy, Tally, Trigger, fires_at, preview

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EVERY = Every(10, start=START)


def at(seconds: float) -> datetime:
    return START + seconds * SECOND


def plan(policy: Policy, now: float, *, trigger: Trigger = EVERY, expected: float = 0) -> Plan:
    return policy.plan(trigger, at(expected), at(now), seed="report")


def test_before_its_time_an_occurrence_is_waited_for() -> None:
    assert plan(Policy(), -0.001) == Plan(run=(), following=START)


def test_an_occurrence_at_its_time_runs_alone() -> None:
    assert plan(Policy(), 0) == Plan(run=(START,), following=at(10))
    assert plan(Policy(), 9.999) == Plan(run=(START,), following=at(10))


def test_of_many_the_latest_runs_and_the_others_are_coalesced() -> None:
    assert plan(Policy(), 57) == Plan(run=(at(50),), coalesced=Tally(count=5), following=at(60))


def test_without_coalescing_each_runs_the_oldest_first() -> None:
    policy = Policy.create(coalesce=False)

    assert plan(policy, 31) == Plan(run=(at(0), at(10), at(20), at(30)), following=at(40))


def test_catching_up_is_bounded_to_the_latest() -> None:
    policy = Policy.create(coalesce=False, catch_up=2)

    assert plan(policy, 31) == Plan(run=(at(20), at(30)), missed=Tally(count=2), following=at(40))


def test_what_is_later_than_the_grace_is_missed() -> None:
    each = Policy.create(coalesce=False, misfire_grace=15)

    assert plan(each, 31) == Plan(run=(at(20), at(30)), missed=Tally(count=2), following=at(40))
    assert plan(Policy.create(misfire_grace=1), 31) == Plan(run=(at(30),), coalesced=Tally(count=3), following=at(40))
    assert plan(Policy.create(misfire_grace=0.5), 31) == Plan(run=(), missed=Tally(count=4), following=at(40))
    assert plan(Policy.create(misfire_grace=0), 30) == Plan(run=(at(30),), coalesced=Tally(count=3), following=at(40))


def test_the_last_occurrence_of_all_is_followed_by_none() -> None:
    assert plan(Policy(), 5, trigger=At(START)) == Plan(run=(START,), following=None)


def test_an_occurrence_that_its_jitter_puts_off_is_not_due_before() -> None:
    trigger = Every(10, start=START, jitter=10)
    fires = fires_at(trigger, START, "report")
    assert fires > START

    before = Policy().plan(trigger, START, fires - timedelta(milliseconds=1), seed="report")
    then = Policy().plan(trigger, START, fires, seed="report")

    assert before == Plan(run=(), following=START)
    assert then == Plan(run=(START,), following=at(10))


def test_lateness_is_measured_from_when_the_jitter_lets_it_fire() -> None:
    trigger = Every(10, start=START, jitter=10)
    fires = fires_at(trigger, START, "report")
    policy = Policy.create(misfire_grace=0)

    assert policy.plan(trigger, START, fires, seed="report").run == (START,)
    assert policy.plan(trigger, START, fires + timedelta(milliseconds=1), seed="report").missed == Tally(count=1)


@pytest.mark.parametrize("coalesce", [True, False])
@pytest.mark.parametrize("trigger", [Every(1, start=START), Cron("* * * * * *", zone="Europe/Berlin")], ids=str)
def test_ten_years_of_downtime_cost_no_loop(trigger: Trigger, *, coalesce: bool) -> None:
    began = time.thread_time()

    found = Policy.create(coalesce=coalesce).plan(trigger, START, START + timedelta(days=3650), seed="report")

    assert time.thread_time() - began < 0.1
    assert found.run[-1] == START + timedelta(days=3650)
    assert found.following == found.run[-1] + SECOND
    forgotten = found.coalesced if coalesce else found.missed
    if isinstance(trigger, Every):
        assert forgotten == Tally(count=3650 * 86_400 + 1 - len(found.run))
    else:
        assert forgotten == Tally(count=1000, exact=False)


policies = st.builds(
    lambda grace, coalesce, catch_up: Policy.create(misfire_grace=grace, coalesce=coalesce, catch_up=catch_up),
    st.none() | st.integers(0, 200),
    st.booleans(),
    st.integers(1, 10),
)
kinds = st.sampled_from([EVERY, Every(7, start=START, jitter=30), Cron("*/20 * * * *", jitter=100), At(at(40))])


@settings(max_examples=200, deadline=None)
@given(policies, kinds, st.integers(-10, 4000))
def test_every_occurrence_has_exactly_one_fate(policy: Policy, trigger: Trigger, now: int) -> None:
    expected = trigger.next_after(START - SECOND)
    assert expected is not None

    found = policy.plan(trigger, expected, at(now), seed="report")

    due = [one for one in preview(trigger, START - SECOND, 1000) if fires_at(trigger, one, "report") <= at(now)]
    assert len(found.run) + found.coalesced.count + found.missed.count == len(due)
    assert list(found.run) == due[len(due) - len(found.run) :]
    assert found.following == (trigger.next_after(due[-1]) if due else expected)


@pytest.mark.parametrize(
    ("policy", "running", "queued", "admission"),
    [
        (Policy(), 10**6, 0, Admission(run=True)),
        (Policy.create(max_instances=2), 1, 0, Admission(run=True)),
        (Policy.create(max_instances=2), 2, 0, Admission()),
        (Policy.create(max_instances=2, overlap="cancel"), 1, 0, Admission(run=True)),
        (Policy.create(max_instances=2, overlap="cancel"), 2, 0, Admission(run=True, cancel=1)),
        (Policy.create(max_instances=2, overlap="cancel"), 5, 0, Admission(run=True, cancel=4)),
        (Policy.create(max_instances=2, overlap="queue"), 2, 0, Admission(queue=True)),
        (Policy.create(max_instances=2, overlap="queue"), 2, 1, Admission()),
        (Policy.create(max_instances=2, overlap="queue", max_queued=3), 2, 2, Admission(queue=True)),
        (Policy.create(max_instances=2, overlap="queue", max_queued=3), 1, 2, Admission(queue=True)),
    ],
)
def test_an_occurrence_runs_waits_takes_a_place_or_is_skipped(
    policy: Policy, running: int, queued: int, admission: Admission
) -> None:
    assert policy.admit(running=running, queued=queued) == admission
