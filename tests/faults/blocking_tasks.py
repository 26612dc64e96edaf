"""Tasks that hold up their process: what P7 enqueues."""

from __future__ import annotations

import ctypes
import time

from callboard import Callboard, Context

app = Callboard()

_holding_the_lock = ctypes.PyDLL(None)  # unlike CDLL, it keeps the interpreter's lock during a call


@app.task(name="blocks-the-loop")
async def blocks_the_loop(seconds: float) -> None:
    time.sleep(seconds)


@app.task(name="holds-the-lock")
async def holds_the_lock(ctx: Context, seconds: int) -> None:
    """Only in its first run."""
    if ctx.attempt == 1:
        _holding_the_lock.sleep(seconds)
