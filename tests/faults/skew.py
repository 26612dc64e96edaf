"""A wall clock that is wrong, for one process: ahead, behind, or strobing, while it runs; or a sleep of its machine.

    skew = Skew(build(folder), folder / "worker-1.skew")
    ...                                     # start the process, with `skew.environment`
    skew.set(60_000)                        # it reads a time that is a minute ahead, from now on
    await skew.strobe(10_000, seconds=3)    # ahead, behind, ahead, ... five times a second; right again at the end
    skew.readings()                         # how many wrong times it has been told
    ...                                     # stop the process (SIGSTOP) for five seconds
    skew.slept(5000)                        # CLOCK_MONOTONIC goes on where it was; and continue it

A library of ours (skew.c) stands between the process and its C library. CLOCK_BOOTTIME, which never jumps, is not
moved, so from what a process writes of it the true time is known: `TrueTime`. libfaketime, which does the same and
more, hangs Debian's Redis.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from servers import ProgramMissing

SOURCE = Path(__file__).with_name("skew.c")
CYCLES = 5  # a second
_SIZE = 8


def build(folder: Path) -> Path:
    """The library. ProgramMissing: there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise ProgramMissing("cc")
    library = folder / "skew.so"
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return library


class Skew:
    """`file` is made here, with a clock that is right."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        file.write_bytes(bytes(3 * _SIZE))

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._library), "SKEW_FILE": str(self._file)}

    def set(self, milliseconds: int) -> None:
        """By so much the clock is ahead; below 0: behind."""
        self._write(0, milliseconds)

    def slept(self, milliseconds: int) -> None:
        """For so long in all, while the process was stopped, as it is now, the machine was suspended."""
        self._write(2, milliseconds)

    def _write(self, place: int, milliseconds: int) -> None:
        with self._file.open("r+b", buffering=0) as file:  # written over, never cut off: the process has it mapped
            file.seek(place * _SIZE)
            file.write(milliseconds.to_bytes(_SIZE, "little", signed=True))

    async def strobe(self, milliseconds: int, *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                for offset in (milliseconds, -milliseconds):
                    self.set(offset)
                    await asyncio.sleep(1 / CYCLES / 2)
        finally:
            self.set(0)

    def readings(self) -> int:
        return int.from_bytes(self._file.read_bytes()[_SIZE : 2 * _SIZE], "little")


class TrueTime(Struct, frozen=True):
    """The wall clock by what never jumps. `booted`: the moment at which CLOCK_BOOTTIME was 0, ns since the epoch."""

    booted: int

    @classmethod
    def of_this_process(cls) -> TrueTime:
        """Whose clock is right. By the reading of both clocks that was interrupted least."""
        return cls(min(_difference() for _ in range(20))[1])

    def now(self) -> int:
        """ms since the Unix epoch."""
        return (self.booted + time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1_000_000

    def at(self, elapsed: float) -> int:
        """That of a CLOCK_BOOTTIME in seconds."""
        return (self.booted + round(elapsed * 1e9)) // 1_000_000


def _difference() -> tuple[int, int]:
    """How long it took, and the difference of the clocks."""
    before, wall, after = (
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        time.time_ns(),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )
    return after - before, wall - (before + after) // 2
