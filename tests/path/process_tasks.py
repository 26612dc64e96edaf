"""Functions for tasks with executor="process": a child process finds them here by their name."""

from __future__ import annotations

import os
import time
from pathlib import Path

from callboard import Context


def pid() -> int:
    return os.getpid()


def write_pid(path: str) -> None:
    Path(path).write_text(str(os.getpid()))


def large(size: int) -> str:
    return "x" * size


def leave(code: int) -> None:
    os._exit(code)


def sleep(path: str) -> None:
    """Writes its process's id, then sleeps for longer than any test."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def fail(message: str) -> None:
    raise LookupError(message)


async def on_a_loop(ctx: Context) -> list[int]:
    ctx.progress({"at": 1})
    return [ctx.attempt, ctx.fence]
