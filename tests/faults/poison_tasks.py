"""Tasks that misbehave, beside those of faults/workload.py: what X5 submits."""

from __future__ import annotations

import asyncio
import os

from faults.workload import app

__all__ = ["app"]

HUNDRED_MB = 100 * 1024 * 1024
TEN_MB = 10 * 1024 * 1024


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str for you")

    def __repr__(self) -> str:
        raise RuntimeError("no repr for you")


class Unserialisable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr for you")


@app.task(name="fails", retries=2, backoff=0.05)
async def fails() -> None:
    raise ValueError("always")


@app.task(name="kills")
async def kills() -> None:
    await asyncio.sleep(0.2)
    os._exit(9)


@app.task(name="never-ends", timeout=0.5)
async def never_ends() -> None:
    await asyncio.Event().wait()


@app.task(name="returns-much")
async def returns_much() -> str:
    return "x" * HUNDRED_MB


@app.task(name="returns-a-stranger")
async def returns_a_stranger() -> object:
    return Unserialisable()


@app.task(name="says-much")
async def says_much() -> None:
    raise ValueError("y" * TEN_MB)


@app.task(name="is-hostile")
async def is_hostile() -> None:
    raise Hostile


@app.task(name="is-hostile-in-a-thread")
def is_hostile_in_a_thread() -> None:
    raise Hostile


@app.task(name="exits")
async def exits() -> None:
    raise SystemExit(3)
