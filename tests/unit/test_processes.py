"""The parent of several processes, where a signal comes at the wrong moment; in a program of its own, as it forks."""

from __future__ import annotations

import subprocess
import sys

BEFORE_THE_SECOND_FORK = """
import os, signal
from callboard.runtime.cli.processes import Processes

class Signalled(Processes):
    def _fork(self, said):
        if said is None:
            os.kill(os.getpid(), signal.SIGTERM)
        super()._fork(said)

def work(number, lifeline, started):
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(number))
    if number == 0:
        started()
    signal.alarm(60)
    while not ended:
        signal.sigtimedwait([], 0.05)
    return 0

raise SystemExit(Processes.run(Signalled(work), 2))
"""

WHILE_A_CHILD_IS_REAPED = """
import os, signal
from callboard.runtime.cli.processes import Processes

parent = Processes(lambda *_: 0)
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
parent._running.add(child)
signal.signal(signal.SIGTERM, parent._pass_on)
os.kill(os.getpid(), signal.SIGTERM)
"""


def ended(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


def test_a_signal_just_before_a_fork_leaves_no_process_that_never_heard_of_it() -> None:
    assert (parent := ended(BEFORE_THE_SECOND_FORK)).returncode == 0, parent.stderr


def test_a_signal_while_a_process_is_being_reaped_does_not_end_the_parent() -> None:
    assert (parent := ended(WHILE_A_CHILD_IS_REAPED)).returncode == 0, parent.stderr
