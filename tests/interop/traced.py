"""The app of test_trace.py: a task that enqueues another."""

from __future__ import annotations

from callboard import Callboard

app = Callboard()


@app.task(name="second", queue="seconds")
def second(name: str) -> str:
    return f"hello {name}"


@app.task(name="greet", queue="greetings")
async def greet(name: str) -> str:
    return await (await second.enqueue(name)).result(60)
