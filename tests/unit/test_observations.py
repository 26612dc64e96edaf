"""Leases by observation: seconds below are those of the observer's own clock."""

from __future__ import annotations

from collections.abc import Iterable

from callboard.metadata.contract import WorkerRow
from callboard.runtime.observations import Observations

LEASE = 10.0


def row(beat: int, *, boot: str = "b", queue: str = "q") -> WorkerRow:
    return WorkerRow(queue=queue, boot=boot, beat=beat, info=b"", active=1)


def boots(observations: Observations, at: float, *rows: WorkerRow, took: float = 0.0) -> list[str]:
    return [one.boot for one in observations.read(list(rows), asked=at, answered=at + took)]


def watch(observations: Observations, moments: Iterable[float], *rows: WorkerRow) -> list[tuple[float, str]]:
    return [(at, boot) for at in moments for boot in boots(observations, at, *rows)]


def steps(first: float, last: float) -> list[float]:
    return [first + i for i in range(int(last - first) + 1)]


def test_a_counter_that_stands_still_for_the_lease_is_dead_and_not_a_moment_before() -> None:
    dead = watch(Observations(LEASE), steps(0, 12), row(1))
    assert dead == [(10.0, "b"), (11.0, "b"), (12.0, "b")]


def test_a_counter_that_changes_lives_whatever_the_direction() -> None:
    observations = Observations(LEASE)
    for at in steps(0, 60):
        assert boots(observations, at, row(-int(at) if at > 30 else int(at))) == []


def test_the_time_starts_anew_with_each_change() -> None:
    observations = Observations(LEASE)
    assert watch(observations, steps(0, 9), row(1)) == []
    assert watch(observations, steps(10, 19), row(2)) == []
    assert watch(observations, [20], row(2)) == [(20, "b")]


def test_a_gap_between_reads_clears_what_was_seen() -> None:
    observations = Observations(LEASE)
    assert watch(observations, steps(0, 9), row(1)) == []
    assert watch(observations, [12.6], row(1)) == []  # more than a quarter of the lease later
    assert watch(observations, steps(13.6, 21.6), row(1)) == []
    assert watch(observations, [22.6], row(1)) == [(22.6, "b")]


def test_a_read_that_was_answered_late_clears_what_was_seen() -> None:
    observations = Observations(LEASE)
    watch(observations, steps(0, 9), row(1))
    assert boots(observations, 10.0, row(1), took=2.0) == []


def test_a_failed_read_makes_nobody_dead() -> None:
    observations = Observations(LEASE)
    watch(observations, steps(0, 9), row(1))
    observations.forget()
    assert watch(observations, steps(10, 19), row(1)) == []
    assert watch(observations, [20], row(1)) == [(20, "b")]


def test_a_standstill_is_measured_from_the_answer_that_showed_the_change_to_the_question_that_still_sees_it() -> None:
    observations = Observations(LEASE)
    assert boots(observations, 0.0, row(1), took=1.0) == []
    assert watch(observations, steps(2, 10), row(1)) == []
    assert watch(observations, [11], row(1)) == [(11, "b")]


def test_rows_are_watched_each_for_itself() -> None:
    observations = Observations(LEASE)
    for at in steps(0, 9):
        assert boots(observations, at, row(1), row(int(at), boot="lively"), row(int(at), queue="other")) == []
    assert boots(observations, 10, row(1), row(10, boot="lively"), row(10, queue="other")) == ["b"]


def test_a_row_that_was_away_is_new_when_it_comes_back() -> None:
    observations = Observations(LEASE)
    watch(observations, steps(0, 5), row(1))
    watch(observations, [6])
    assert watch(observations, steps(7, 16), row(1)) == []
    assert watch(observations, [17], row(1)) == [(17, "b")]
