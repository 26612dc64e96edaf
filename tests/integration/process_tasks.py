"""Tasks that test_executors.py runs in child processes; they live here because a child has to import them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from callboard.runtime.context import Context
from callboard.runtime.retry import Retry


class Transient(Exception):
    pass


class Worse(Transient):
    pass


def add(a: int, b: int = 10) -> int:
    return a + b


async def add_async(a: int, b: int = 10) -> int:
    await asyncio.sleep(0)
    return a + b


def echo(value: Any) -> Any:
    return value


def whereabouts() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "stdin": os.readlink("/proc/self/fd/0"),
        "stdout": os.readlink("/proc/self/fd/1"),
    }


def environment(name: str) -> str | None:
    return os.environ.get(name)


def blob(size: int) -> str:
    return "x" * size


def tell(ctx: Context, steps: int) -> dict[str, Any]:
    for step in range(steps):
        ctx.progress({"step": step})
    return {"job": ctx.job_id, "attempt": ctx.attempt, "fence": ctx.fence, "meta": ctx.meta, "queue": ctx.queue}


def tell_too_much(ctx: Context) -> None:
    ctx.progress("x" * 1_000_000)


def fail(kind: str) -> NoReturn:
    try:
        raise OSError("disk is full")
    except OSError as error:
        raise {"transient": Transient, "worse": Worse, "value": ValueError}[kind](f"{kind} it is") from error


def ask_again(seconds: float) -> NoReturn:
    raise Retry(after=timedelta(seconds=seconds), reason="not yet")


def unserialisable() -> dict[str, Any]:
    return {"rows": [1, object()]}


def end_by(way: str) -> None:
    match way:
        case "os._exit":
            os._exit(7)
        case "sys.exit":
            sys.exit(3)
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)


def allocate(megabytes: int) -> int:
    return len(bytearray(megabytes * 1024 * 1024))


def hang(note: str) -> None:
    """Writes its pid and that of a grandchild, then takes for ever."""
    grandchild = subprocess.Popen(["sleep", "600"])
    write(note, f"{os.getpid()} {grandchild.pid}")
    time.sleep(600)


def hang_holding_the_interpreter(note: str) -> None:
    """Within a C call that does not let go of the GIL: no other thread of the process runs."""
    write(note, f"{os.getpid()}")
    ctypes.PyDLL(None).sleep(600)


def leave_a_grandchild(note: str) -> None:
    grandchild = subprocess.Popen(["sleep", "600"])
    write(note, f"{grandchild.pid}")
    os._exit(7)


def until_cancelled(ctx: Context, note: str) -> str:
    write(note, f"{os.getpid()}")
    while not ctx.cancelled:
        time.sleep(0.01)
    write(note + ".end", "cancelled")
    return "stopped by itself"


def until_uncertain(ctx: Context, note: str) -> bool:
    write(note, f"{os.getpid()}")
    while not ctx.lease_uncertain:
        time.sleep(0.01)
    return ctx.lease_uncertain


async def wait_until_cancelled(note: str) -> None:
    write(note, f"{os.getpid()}")
    try:
        await asyncio.sleep(600)
    finally:
        write(note + ".end", "cancelled")


def talk(words: str) -> None:
    print(words)
    print(words, file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def babble() -> None:
    """Writes into the socket what is no frame."""
    descriptor = int(sys.argv[1])
    os.write(descriptor, b"\xff\xff\xff\xff" + b"x" * 100)
    time.sleep(600)


def write(note: str, text: str) -> None:
    """All at once, so that who waits for the file never reads half of it."""
    path = Path(note)
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").rename(path)


class Toolbox:
    @staticmethod
    def double(number: int) -> int:
        return 2 * number


hidden = add  # its name leads to `add`


def replaced() -> None: ...


original = replaced


def replaced() -> None:  # type: ignore[no-redef]
    ...
