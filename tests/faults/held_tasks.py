"""Tasks that run for a known time, and write the ledger that FAULTS_LEDGER names."""

from __future__ import annotations

import asyncio

from callboard import Callboard, Context
from faults.workload import ledger, run_of

app = Callboard()


@app.task(name="lasts")
async def lasts(ctx: Context, seconds: float) -> int:
    with ledger().running(run_of(ctx)):
        await asyncio.sleep(seconds)
    return ctx.attempt


@app.task(name="lasts-at-first")
async def lasts_at_first(ctx: Context, seconds: float) -> int:
    """In its first run for so long, then no time at all."""
    with ledger().running(run_of(ctx)):
        await asyncio.sleep(seconds if ctx.attempt == 1 else 0)
    return ctx.attempt
