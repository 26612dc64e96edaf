"""The protocol on the real classes, under a seeded scheduler: nothing of it may fail, and each clause is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from itertools import chain, count
from pathlib import Path

import pytest

from simulation.clauses import CLAUSES, FOUND, WITH_THEM, first_violation
from simulation.scene import WHOLE, Laws, run

SECONDS = 60.0  # of runs in tests/run; a run takes some 50 ms of a processor
FEWEST = 200
MAIN = Path(__file__).with_name("main.py")
DESIGN = Path(__file__).parents[2] / "DESIGN.md"
SEEDS = 400  # of a search for what a clause prevents


def runs_within(seconds: float, *, first: int) -> int:
    """How many runs, from that seed on, showed nothing wrong. Raises Violated with the seed of one that did."""
    until = time.monotonic() + seconds
    for done in count():
        if done >= FEWEST and time.monotonic() > until:
            return done
        run(first + done)
    raise AssertionError("unreachable")


def test_whatever_fails_no_accepted_job_is_lost_and_none_runs_without_a_reason() -> None:
    done = runs_within(SECONDS, first=0)
    print(f"{done} runs")
    assert done >= FEWEST


@pytest.mark.parametrize("seed", [2000420, 2051334, 3505081])
def test_a_delayed_job_does_not_start_early_though_its_enqueue_or_its_end_is_said_again(seed: int) -> None:
    run(seed)


def test_a_claim_that_comes_too_late_is_given_back_though_its_worker_lives() -> None:
    run(4506330)


@pytest.mark.soak
def test_the_same_for_as_long_as_it_is_given() -> None:
    first = int(os.environ.get("SOAK_SEED", "1000000"))
    done = runs_within(float(os.environ["SOAK_SECONDS"]), first=first)
    print(f"{done} runs from seed {first} on")
    assert done >= FEWEST


@pytest.mark.parametrize("clause", CLAUSES)
def test_without_any_one_clause_what_it_prevents_happens(clause: str) -> None:
    shown = FOUND[clause]
    seeds = chain([shown.seed], range(SEEDS))  # the one that showed it before comes first
    assert first_violation(CLAUSES[clause], seeds=seeds, shown=shown) is not None


def test_the_table_of_clauses_is_that_of_the_document() -> None:
    rows = re.findall(r"^\| ([a-z][^|(]+?)(?: \([^|]*\))? \| (\d+) \| ([^|]+) \|$", DESIGN.read_text(), re.MULTILINE)
    assert [(name, int(seed), what) for name, seed, what in rows if name in CLAUSES] == [
        (name, shown.seed, shown.what) for name, shown in FOUND.items()
    ]


@pytest.mark.parametrize("world", WITH_THEM)
def test_what_makes_a_clause_matter_is_no_violation_by_itself(world: str) -> None:
    laws: Laws = WITH_THEM[world]
    assert first_violation(laws, seeds=range(5)) is None


def test_a_seed_gives_the_same_run_whatever_the_order_of_pythons_sets() -> None:
    def told(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, str(MAIN), "7", "--runs", "3", "--fingerprints"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    once = told("1")
    assert once.count("\n") == 3
    assert told("2") == once
    assert run(7, WHOLE).fingerprint in once
