"""The run ledger keeps every line of every writer, killed ones included."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.ledger import Entry, Event, Ledger, LedgerDamaged, Run, read

TESTS = Path(__file__).parents[1]
RUN = Run(job="it's \n an id", dispatch=2, attempt=1, fence=7, boot="b", process=42)


class StillClock:
    def now(self) -> int:
        return 1_700_000_000_000

    def elapsed(self) -> float:
        return 12.5


def test_a_run_leaves_its_start_and_its_end(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", clock=StillClock())

    with ledger.running(RUN):
        assert [entry.event for entry in read(tmp_path / "ledger")] == [Event.START]

    ledger.close()
    assert read(tmp_path / "ledger") == [
        Entry(run=RUN, event=event, elapsed=12.5, moment=1_700_000_000_000) for event in (Event.START, Event.END)
    ]


@pytest.mark.parametrize(("error", "event"), [(RuntimeError, Event.FAILED), (asyncio.CancelledError, Event.STOPPED)])
def test_a_handler_that_raises_has_failed_and_one_that_is_cancelled_has_not(
    tmp_path: Path, error: type[BaseException], event: Event
) -> None:
    ledger = Ledger(tmp_path / "ledger", clock=StillClock())

    with pytest.raises(error), ledger.running(RUN):
        raise error

    ledger.close()
    assert [entry.event for entry in read(tmp_path / "ledger")] == [Event.START, event]


def test_a_ledger_that_was_never_opened_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "ledger") == []


def test_a_line_that_is_still_being_written_is_left_for_the_next_reader(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path, clock=StillClock())
    ledger.write(RUN, Event.START)
    whole = path.read_text()
    path.write_text(whole + whole[:12])
    assert [entry.run for entry in read(path)] == [RUN]
    ledger.close()


def test_the_beginning_that_a_killed_process_has_left_in_front_of_a_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path, clock=StillClock())
    ledger.write(RUN, Event.START)
    whole = path.read_text()
    path.write_text(whole + whole[:12] + whole)
    assert [entry.run for entry in read(path)] == [RUN, RUN]
    ledger.close()


def test_a_line_that_is_not_a_ledger_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text('["a",1,1]\n')

    with pytest.raises(LedgerDamaged, match="line 1"):
        read(tmp_path / "ledger")


def test_the_lines_of_killed_writers_are_whole(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from faults.ledger import *\n"
        "class Clock:\n def now(self): return 0\n def elapsed(self): return 0.0\n"
        "ledger = Ledger(Path(sys.argv[1]), clock=Clock())\n"
        "pid = os.getpid()\nfor n in range(10**9):\n"
        " ledger.write(Run(job='x' * 500, dispatch=n, attempt=1, fence=1, boot='b', process=pid), Event.START)\n"
        " if n == 500: print(flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "ledger")]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    writers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        writer.stdout.close()

    entries = read(tmp_path / "ledger")

    for writer in writers:
        written = [entry.run.dispatch for entry in entries if entry.run.process == writer.pid]
        assert len(written) > 500
        assert written == list(range(len(written)))
