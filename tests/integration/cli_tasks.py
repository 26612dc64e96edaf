"""The app that test_cli_*.py hand to real `callboard` processes; its settings come from their environment."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from callboard import Callboard, Context

app = Callboard()


@app.task(name="cli.add", queue="sums")
async def add(left: int, right: int) -> int:
    return left + right


@app.task(name="cli.fail", queue="sums")
async def fail(message: str) -> None:
    raise ValueError(message)


@app.task(name="cli.steps", queue="sums")
async def steps(ctx: Context, count: int) -> int:
    ctx.progress({"step": count})
    return count


@app.task(name="cli.hold", queue="holds")
async def hold(folder: str) -> str:
    """Says that it runs by the file `running`, ends with a file `end`, and says how many objects are frozen."""
    Path(folder, "running").touch()
    while not Path(folder, "end").exists():
        await asyncio.sleep(0.02)
    Path(folder, "frozen").write_text(str(gc.get_freeze_count()))
    return "held"
