"""`callboard demo`, as a real process."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from integration.cli_process import HERE, Cli, environment

TASKS = ("emails.send", "emails.remind", "payments.charge", "reports.build", "reports.import", "housekeeping.beat")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_the_demo_ends_by_itself_and_its_table_says_what_ran() -> None:
    ended = Cli().run("demo", "--seconds", "3")

    assert ended.code == 0, ended
    assert ended.stderr == ""
    log, _, closing = ended.stdout.partition("what it shows")
    rows = {line.split()[0]: [int(cell) for cell in line.split()[-4:]] for line in _rows(closing)}
    assert set(rows) == {*TASKS, "all"}
    for runs, completed, retried, failed in rows.values():
        assert runs == completed + retried + failed
    assert rows["all"] == [sum(column) for column in zip(*(rows[task] for task in TASKS), strict=True)]
    assert rows["emails.send"][1] > 0
    assert rows["housekeeping.beat"][1] >= 2  # it repeats itself
    assert rows["reports.import"][1:] == [0, *rows["reports.import"][2:]]
    assert min(rows["reports.import"][2:]) > 0  # is retried, fails for good
    assert re.search(r"s of 3: \d+ waiting, \d+ delayed, \d+ active", log)


def test_the_demo_ends_within_two_seconds_of_its_time() -> None:
    ended = Cli().run("demo", "--seconds", "2")

    told = [float(line.split()[0]) for line in ended.stdout.splitlines() if re.match(r" *\d+\.\d s ", line)]
    assert 2 <= max(told) < 4


def test_the_demo_in_json_holds_the_tally_of_every_task() -> None:
    told = Cli().ok("demo", "--seconds", "1", "--json").json

    assert set(told["tasks"]) == set(TASKS)
    assert told["tasks"]["emails.send"]["completed"] > 0
    assert set(told["queues"]) == {"emails", "payments", "reports", "housekeeping"}


def test_the_demo_ignores_servers_that_the_environment_names() -> None:
    ended = Cli(broker="amqp://127.0.0.1:1/", store="redis://127.0.0.1:1/0").run("demo", "--seconds", "1", "--json")

    assert ended.code == 0, ended


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_live_view_fits_into_80_columns_and_ctrl_c_ends_it_in_order(interrupted: bool) -> None:
    seconds = 120 if interrupted else 2
    code, output, took = _in_terminal(seconds=seconds, interrupt_at=b"completed  " if interrupted else None)

    lines = [_ESCAPES.sub("", line) for line in re.split(r"[\r\n]+", output)]
    assert code == 0
    assert took < 60
    assert max(map(len, lines)) <= 80
    assert any(f"{seconds} s left" in line or f"{seconds - 1} s left" in line for line in lines)
    assert interrupted or any("ending in order" in line for line in lines)
    assert any(line.startswith("emails.send") for line in lines[-20:])


def _rows(closing: str) -> list[str]:
    return [line for line in closing.splitlines() if re.search(r"\d+ +\d+ +\d+ +\d+$", line)]


def _in_terminal(*, seconds: int, interrupt_at: bytes | None) -> tuple[int, str, float]:
    """Exit code, output and duration; Ctrl-C is pressed when `interrupt_at` was seen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    variables = {**environment(), "TERM": "xterm-256color"}
    del variables["COLUMNS"]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "callboard", "demo", "--seconds", str(seconds)],
        cwd=HERE.parent, env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    output = b""
    try:
        while chunk := _read(ours):
            output += chunk
            if interrupt_at is not None and interrupt_at in _ESCAPES.sub("", output.decode(errors="replace")).encode():
                process.send_signal(signal.SIGINT)
                interrupt_at = None
        return process.wait(30), output.decode(), time.monotonic() - began
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux says that nobody has the other side open
        return b""
