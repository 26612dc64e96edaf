"""The run ledger: what handlers did, written where no fault under test can reach it.

Each handler appends one line when it starts and one when it ends, each with a single `write` to a file opened with
O_APPEND: lines of many processes do not mix, and what was written survives the SIGKILL of its writer.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What the ledger asks of `callboard.runtime.clock.SystemClock`."""

    def now(self) -> int: ...

    def elapsed(self) -> float: ...


class Event(StrEnum):
    START = "start"
    END = "end"  # returned
    STOPPED = "stopped"  # was interrupted
    FAILED = "failed"  # raised: what runs after it is a retry, not a repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start of a handler: which attempt of which job, under which fence, in which process."""

    job: str
    dispatch: int
    attempt: int
    fence: int
    boot: str
    process: int  # the kill log names processes: a boot id may change within one


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. `elapsed` is CLOCK_BOOTTIME in seconds, `moment` CLOCK_REALTIME in ms since the Unix epoch."""

    run: Run
    event: Event
    elapsed: float
    moment: int


class LedgerDamaged(Exception):
    """A line cannot be read. No kill of a process does this; a full disk or a second kind of writer might."""


class Ledger:
    """The writing end. One for each process; threads may share it."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._clock = clock
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, run: Run, event: Event) -> None:
        line = [*astuple(run), event, self._clock.elapsed(), self._clock.now()]
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    @contextmanager
    def running(self, run: Run) -> Iterator[None]:
        """Write the start, and the end however the handler ends."""
        self.write(run, Event.START)
        ended = Event.END
        try:
            yield
        except Exception:
            ended = Event.FAILED
            raise
        except asyncio.CancelledError:
            ended = Event.STOPPED
            raise
        finally:
            self.write(run, ended)

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[Entry]:
    """The entries in the order in which they were written. A ledger that nobody has opened yet is empty.

    A line without its end is being written at this very moment: who reads beside a writer may see a part of it."""
    if not path.exists():
        return []
    return entries(path.read_text().rpartition("\n")[0])


def entries(complete: str) -> list[Entry]:
    """Those of whole lines. A process that is killed as it writes may leave a beginning, which another's line follows
    at once: it has written nothing."""
    return [
        _entry(number, line[max(0, line.rfind('["')) :]) for number, line in enumerate(complete.splitlines(), start=1)
    ]


def _entry(number: int, line: str) -> Entry:
    try:
        job, dispatch, attempt, fence, boot, process, event, elapsed, moment = json.loads(line)
    except ValueError as error:
        raise LedgerDamaged(f"line {number}: {line[:200]!r}") from error
    run = Run(job=job, dispatch=dispatch, attempt=attempt, fence=fence, boot=boot, process=process)
    return Entry(run=run, event=Event(event), elapsed=elapsed, moment=moment)
