"""The app whose schedules test_t1_schedulers_killed.py makes."""

from __future__ import annotations

from callboard import Callboard

APP = "faults.scheduled:app"
QUEUE = "ticks"

app = Callboard()


@app.task(name="tick", queue=QUEUE)
async def tick() -> None:
    """Ends at once: what counts is that it was called for."""
