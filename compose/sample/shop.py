"""A small application: the worker of compose.yaml runs its tasks, the scheduler makes its schedule's jobs."""

from __future__ import annotations

import asyncio

from callboard import Backoff, Callboard, Context

app = Callboard()  # where its broker and store are is told by the container


@app.task(name="greet", queue="greetings", retries=3, backoff=Backoff.exponential(1, cap=60))
async def greet(name: str, seconds: float = 0.0, *, ctx: Context) -> str:
    await asyncio.sleep(seconds)
    ctx.logger.info("greeting %s", name)
    return f"hello {name}"


@app.every(5)
@app.task(name="tick", queue="greetings")
async def tick() -> str:
    return "tick"
