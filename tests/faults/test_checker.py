"""The checker finds each kind of wrong in a ledger made by hand, and nothing in one that is right."""

from __future__ import annotations

import dataclasses

import pytest

from faults.checker import Evidence, Forgotten, Kill, Pause, check
from faults.ledger import Entry, Event, Run

WORKER, OTHER = 100, 200


def run(job: str = "a", *, dispatch: int = 1, attempt: int = 1, process: int = WORKER) -> Run:
    return Run(job=job, dispatch=dispatch, attempt=attempt, fence=dispatch, boot=f"boot-{process}", process=process)


def start(of: Run, at: float) -> Entry:
    return Entry(run=of, event=Event.START, elapsed=at, moment=int(at * 1000))


def end(of: Run, at: float) -> Entry:
    return Entry(run=of, event=Event.END, elapsed=at, moment=int(at * 1000))


def failed(of: Run, at: float) -> Entry:
    return Entry(run=of, event=Event.FAILED, elapsed=at, moment=int(at * 1000))


def evidence(*ledger: Entry, jobs: frozenset[str] = frozenset({"a"})) -> Evidence:
    return Evidence(submitted=jobs, accepted=jobs, finals=dict.fromkeys(jobs, "completed"), ledger=ledger)


ONCE = evidence(start(run(), 10.0), end(run(), 11.0))
AGAIN = run(dispatch=2, process=OTHER)
DIED_AND_AGAIN = evidence(start(run(), 10.0), start(AGAIN, 25.0), end(AGAIN, 26.0))
TWICE_TO_THE_END = evidence(start(run(), 10.0), end(run(), 11.0), start(AGAIN, 25.0), end(AGAIN, 26.0))


def test_a_run_without_faults_is_sound_and_told_in_one_line() -> None:
    verdict = check(ONCE)

    assert verdict.sound
    assert str(verdict) == (
        "lost 0, repeated 0, unexplained 0, phantom 0, early 0 | accepted 1, final 1, starts 1 | "
        "kills 0 of 0 hit, pauses 0 of 0 hit"
    )


def test_a_job_that_was_accepted_and_is_not_final_is_lost() -> None:
    verdict = check(dataclasses.replace(ONCE, submitted=frozenset("ab"), accepted=frozenset("ab")))

    assert verdict.lost == ("b",)
    assert wrongs(verdict) == {"lost"}


def test_a_job_that_was_submitted_and_never_accepted_is_not_lost() -> None:
    assert check(dataclasses.replace(ONCE, submitted=frozenset("ab"))).sound


def test_a_second_run_without_any_fault_is_unexplained() -> None:
    verdict = check(TWICE_TO_THE_END)

    assert verdict.repeated == verdict.unexplained == (AGAIN,)
    assert wrongs(verdict) == {"unexplained"}


def test_a_final_job_that_nobody_submitted_is_a_phantom() -> None:
    verdict = check(dataclasses.replace(ONCE, finals={"a": "completed", "ghost": "completed"}))

    assert verdict.phantom == ("ghost",)
    assert wrongs(verdict) == {"phantom"}


def test_a_handler_that_ran_for_a_job_nobody_submitted_is_a_phantom_too() -> None:
    verdict = check(evidence(*ONCE.ledger, start(run("ghost"), 12.0)))

    assert wrongs(verdict) == {"phantom"}


def test_a_start_before_the_due_time_is_early_by_one_millisecond() -> None:
    assert check(dataclasses.replace(ONCE, due={"a": 10_000})).sound

    verdict = check(dataclasses.replace(ONCE, due={"a": 10_001}))

    assert verdict.early == (run(),)
    assert wrongs(verdict) == {"early"}


def test_a_run_after_one_that_raised_is_a_retry_and_no_repeat() -> None:
    retry = run(dispatch=2, attempt=2)

    assert check(evidence(start(run(), 10.0), failed(run(), 11.0), start(retry, 12.0))).repeated == ()


def test_a_run_that_began_before_the_other_raised_is_a_repeat() -> None:
    early = run(dispatch=2, attempt=2)

    assert check(evidence(start(run(), 10.0), start(early, 10.5), failed(run(), 11.0))).unexplained == (early,)


@pytest.mark.parametrize(
    "fault",
    [
        {"kills": [Kill(process=WORKER, elapsed=10.5)]},
        {"pauses": [Pause(process=WORKER, since=9.0, until=24.0)]},
        {"refused": frozenset({("a", 1)})},
        {"forgotten": [Forgotten(since=9.0, until=10.5)]},
    ],
    ids=["kill", "pause", "refused finish", "store forgot"],
)
def test_a_second_run_is_explained_by_each_fault(fault: dict[str, object]) -> None:
    verdict = check(dataclasses.replace(DIED_AND_AGAIN, **fault))  # type: ignore[arg-type]

    assert len(verdict.repeated) == 1
    assert verdict.sound


@pytest.mark.parametrize(
    "kill",
    [
        Kill(process=OTHER, elapsed=10.5),  # somebody else
        Kill(process=WORKER, elapsed=9.9),  # before it started
        Kill(process=WORKER, elapsed=13.1),  # long after it had ended
    ],
    ids=["other process", "before the start", "long after the end"],
)
def test_a_kill_that_did_not_hit_the_run_explains_nothing(kill: Kill) -> None:
    verdict = check(dataclasses.replace(TWICE_TO_THE_END, kills=[kill]))

    assert wrongs(verdict) == {"unexplained"}


def test_a_kill_between_the_end_of_the_handler_and_its_finish_explains_a_second_run() -> None:
    assert check(dataclasses.replace(TWICE_TO_THE_END, kills=[Kill(process=WORKER, elapsed=11.1)])).sound


def test_a_kill_after_the_second_start_does_not_explain_it() -> None:
    assert not check(dataclasses.replace(DIED_AND_AGAIN, kills=[Kill(process=WORKER, elapsed=25.1)])).sound


def test_two_starts_in_one_dispatch_are_explained_by_a_store_that_forgot() -> None:
    twice = evidence(start(run(), 10.0), start(run(process=OTHER), 11.0))

    assert not check(twice).sound
    assert check(dataclasses.replace(twice, forgotten=[Forgotten(since=9.0, until=10.5)])).sound


@pytest.mark.parametrize("attempt", [1, 2])
def test_two_starts_in_one_dispatch_are_not_explained_by_a_kill(attempt: int) -> None:
    twice = run(attempt=attempt, process=OTHER)
    kill = Kill(process=WORKER, elapsed=10.5)

    verdict = check(dataclasses.replace(evidence(start(run(), 10.0), start(twice, 11.0)), kills=[kill]))

    assert verdict.unexplained == (twice,)


def test_faults_that_hit_nothing_are_counted_apart() -> None:
    kills = [Kill(process=WORKER, elapsed=10.5), Kill(process=OTHER, elapsed=10.5)]
    pauses = [Pause(process=OTHER, since=1.0, until=2.0)]

    verdict = check(dataclasses.replace(DIED_AND_AGAIN, kills=kills, pauses=pauses))

    assert (verdict.kills, verdict.kills_that_hit, verdict.pauses, verdict.pauses_that_hit) == (2, 1, 1, 0)


def test_evidence_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="never submitted"):
        dataclasses.replace(ONCE, accepted=frozenset("ab"))


def wrongs(verdict: object) -> set[str]:
    return {name for name in ("lost", "unexplained", "phantom", "early") if getattr(verdict, name)}
