"""How a script of a system talks with the benchmark: it says that it is ready, is told to go, answers with figures.

Standard library alone, since the peers import it in environments of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Spent(NamedTuple):
    seconds: float
    cpu: float

    def since(self, before: Spent) -> dict[str, float]:
        return {"seconds": self.seconds - before.seconds, "cpu": self.cpu - before.cpu}


def spent() -> Spent:
    """Wall and this process's CPU, in seconds."""
    return Spent(time.perf_counter(), time.process_time())


def wait_for_go() -> None:
    """The connections are made and the queue is declared; the benchmark notes what everybody has used so far."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("the benchmark is gone")


def answer(figures: Mapping[str, float | Sequence[float]]) -> None:
    print(json.dumps(figures), flush=True)


def broker_url() -> str:
    return os.environ["BENCH_BROKER"]


def store_url() -> str:
    return os.environ["BENCH_STORE"]


LATENCY_WARM_UP = 20
LATENCY_PAUSE_SECONDS = 0.005  # so that the system is idle again before the next job
