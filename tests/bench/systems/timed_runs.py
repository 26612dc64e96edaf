"""What the handlers of bench_time.py do in every system, and when its jobs are due. Standard library alone, since the
peers import it in environments of their own."""

from __future__ import annotations

import os
import sys
import time
from random import Random


def note(number: int, due: int) -> None:
    """Append when a job ran; `due` in ms since the epoch."""
    started = time.time_ns()
    file = os.open(os.environ["TIMED_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"%d %d %d\n" % (number, due, started))
    os.close(file)


def dues(jobs: int, first: int, spread: int, seed: int = 1) -> list[int]:
    """ms since the epoch; `spread` ms from the `first` on."""
    random = Random(seed)
    return [first + random.randrange(spread) for _ in range(jobs)]


def asked() -> list[int]:
    """JOBS FIRST SPREAD, as the benchmark gives them to a script that enqueues."""
    return dues(*map(int, sys.argv[1:4]))


NAME = os.environ.get("BENCH_NAME", "bench")
STORE = os.environ.get("BENCH_STORE", "")
BROKER = os.environ.get("BENCH_BROKER", "")
