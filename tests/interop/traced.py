"""The app of test_trace.py: a task that enqueues another, and what both log."""

from __future__ import annotations

import logging

from callboard import Callboard

app = Callboard()
log = logging.getLogger("traced")


@app.task(name="second", queue="seconds")
def second(name: str) -> str:
    log.info("in a thread")
    return f"hello {name}"


@app.task(name="greet", queue="greetings")
async def greet(name: str) -> str:
    log.info("in the loop")
    return await (await second.enqueue(name)).result(60)
