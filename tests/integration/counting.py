"""The app of test_twenty_thousand.py, and its producer: `python -m integration.counting`.

COUNTING_LEDGER names the run ledger that its handlers write.
"""

from __future__ import annotations

import asyncio
import functools
import os
from pathlib import Path

from callboard import Callboard, Context
from callboard.runtime.clock import SystemClock
from faults.ledger import Ledger, Run

APP = "integration.counting:app"
QUEUE = "numbers"
JOBS = 20_000
BULK = 500
DELAYED_OF = 20  # one job in so many is delayed

app = Callboard()


@functools.cache
def ledger() -> Ledger:
    return Ledger(Path(os.environ["COUNTING_LEDGER"]), clock=SystemClock())


@app.task(name="count", queue=QUEUE)
async def count(ctx: Context, number: int) -> int:
    run = Run(
        job=ctx.job_id,
        dispatch=ctx.dispatch,
        attempt=ctx.attempt,
        fence=ctx.fence,
        boot=ctx.worker,
        process=os.getpid(),
    )
    with ledger().running(run):
        return number


def job_id(number: int) -> str:
    return f"number-{number:05}"


def item(number: int) -> dict[str, object]:
    delay = {"delay": 0.2} if number % DELAYED_OF == 0 else {}
    return {"task_id": "count", "args": [number], "job_id": job_id(number), **delay}


async def produce() -> None:
    async with app:
        for first in range(0, JOBS, BULK):
            await app.queue(QUEUE).add_bulk([item(number) for number in range(first, first + BULK)])


if __name__ == "__main__":
    asyncio.run(produce())
