"""Tasks for a worker that runs them by the million: short, a few of them failing once, some in a thread."""

from __future__ import annotations

from callboard import Callboard, Context

APP = "faults.tireless_tasks:app"
QUEUE = "images"
FAILING = 100  # one in so many fails at its first attempt
THREADED = 50  # and one in so many runs in a thread

app = Callboard()


class FailsOnce(Exception):
    """What a job raises that was planned to fail at its first attempt."""


@app.task(name="mark", queue=QUEUE, retries=1, backoff=0)
async def mark(ctx: Context, number: int, text: str) -> int:
    if number % FAILING == 0 and ctx.attempt == 1:
        raise FailsOnce(f"{number}: {text}")
    return number


@app.task(name="mark-in-thread", queue=QUEUE)
def mark_in_thread(number: int, text: str) -> int:
    return number
