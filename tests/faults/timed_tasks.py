"""The app whose handlers note when they ran: the file that TIMED_RUNS names gets one line a run."""

from __future__ import annotations

import os
import time

from callboard import Callboard

APP = "faults.timed_tasks:app"
QUEUE = "timed"
RUNS = "TIMED_RUNS"

app = Callboard()


@app.task(name="note", queue=QUEUE)
async def note(number: int, due: int) -> None:
    """`due`: ms since the epoch."""
    started = time.time_ns()
    file = os.open(os.environ[RUNS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"%d %d %d\n" % (number, due, started))
    os.close(file)


@app.task(name="tick", queue=QUEUE)
async def tick() -> None:
    """Ends at once: what counts is that it was called for."""
