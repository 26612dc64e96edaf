"""Tasks that hold up their process: what P7 enqueues."""

from __future__ import annotations

import asyncio
import ctypes
import time
from pathlib import Path

from callboard import Callboard, Context

app = Callboard()

_holding_the_lock = ctypes.PyDLL(None)  # unlike CDLL, it keeps the interpreter's lock during a call


@app.task(name="blocks-the-loop")
async def blocks_the_loop(seconds: float) -> None:
    time.sleep(seconds)


@app.task(name="stands-still")
async def stands_still(ctx: Context, until: str) -> None:
    """In its first run until that file is there."""
    while ctx.attempt == 1 and not Path(until).exists():
        time.sleep(0.05)


@app.task(name="waits", timeout=20)
async def waits(ctx: Context) -> None:
    """In its first run for longer than it may."""
    if ctx.attempt == 1:
        await asyncio.sleep(3600)


@app.task(name="holds-the-lock")
async def holds_the_lock(ctx: Context, seconds: int) -> None:
    """Only in its first run."""
    if ctx.attempt == 1:
        _holding_the_lock.sleep(seconds)
