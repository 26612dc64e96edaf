"""The app that fault tests deploy, and the mix of jobs that its producers send (the standard load).

Four queues; handlers of 0 to 50 ms, one in a hundred of 1 s, one in five in a thread; one job in ten delayed by up to
3 s, one in twenty failing at its first attempt. Every handler writes the ledger that FAULTS_LEDGER names.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from pathlib import Path
from random import Random

from msgspec import Struct

from callboard import Callboard, Context
from callboard.runtime.clock import SystemClock
from faults.ledger import Ledger, Run

APP = "faults.workload:app"
QUEUES = ("images", "mail", "orders", "reports")
LONG_MILLISECONDS = 1000
RETRIES = 3
BACKOFF_SECONDS = 0.2

app = Callboard()


class FailsOnce(Exception):
    """What a job raises that was planned to fail at its first attempt."""


@functools.cache
def ledger() -> Ledger:
    return Ledger(Path(os.environ["FAULTS_LEDGER"]), clock=SystemClock())


def run_of(ctx: Context) -> Run:
    return Run(
        job=ctx.job_id,
        dispatch=ctx.dispatch,
        attempt=ctx.attempt,
        fence=ctx.fence,
        boot=ctx.worker,
        process=os.getpid(),
    )


def end(ctx: Context, fails: bool) -> int:
    if fails and ctx.attempt == 1:
        raise FailsOnce(ctx.job_id)
    return ctx.attempt


@app.task(name="work", retries=RETRIES, backoff=BACKOFF_SECONDS)
async def work(ctx: Context, milliseconds: int, fails: bool) -> int:
    with ledger().running(run_of(ctx)):
        await asyncio.sleep(milliseconds / 1000)
        return end(ctx, fails)


@app.task(name="work-in-thread", retries=RETRIES, backoff=BACKOFF_SECONDS)
def work_in_thread(ctx: Context, milliseconds: int, fails: bool) -> int:
    with ledger().running(run_of(ctx)):
        time.sleep(milliseconds / 1000)
        return end(ctx, fails)


class Plan(Struct, frozen=True, kw_only=True):
    """One job of the mix. `delay`: ms from its first submission, 0 for none."""

    queue: str
    milliseconds: int
    fails: bool
    delay: int
    in_thread: bool


def plan(random: Random, *, delayed: float = 0.1, failing: float = 0.05) -> Plan:
    """`delayed`, `failing`: which parts of the jobs are."""
    return Plan(
        queue=random.choice(QUEUES),
        milliseconds=LONG_MILLISECONDS if random.random() < 0.01 else random.randint(0, 50),
        fails=random.random() < failing,
        delay=random.randint(1, 3000) if random.random() < delayed else 0,
        in_thread=random.random() < 0.2,
    )
