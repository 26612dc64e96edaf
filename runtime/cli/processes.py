"""Several processes of one command, under a small parent.

    parent ──fork──> child 1 ── is connected, and says so ──┐
       └─────fork──> child 2 .. N  <────────────────────────┘ so that a wrong setting is told once, not N times

The parent passes SIGTERM and SIGINT on and restarts nothing: that is for whoever runs the parent (systemd, a container
engine), who would not see it otherwise. A child that ends with another code than 0 ends the others in order, and its
code becomes the parent's. Children have process groups of their own, since Ctrl-C would reach them twice otherwise,
once from the terminal and once from the parent, and twice means: hand back at once. A child whose parent was killed
finds a pipe closed and ends in order.

The parent forks before it imports the app: no thread and no connection is there to be copied.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

log = logging.getLogger("callboard.processes")

# Called in the child with its number, from 0, the reading end of the pipe that closes with the parent, and `started`,
# to be called once the child is connected. Returns the exit code.
Work = Callable[[int, int, Callable[[], None]], int]


class Processes:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._running: set[int] = set()
        self._forked = 0
        self._ending = False
        self._lifeline, self._held = os.pipe()

    def run(self, count: int) -> int:
        """Until all children have ended; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        started = self._fork_and_listen()
        for _ in range(count - 1 if started else 0):
            self._fork(None)
        return self._wait()

    def _fork_and_listen(self) -> bool:
        """Fork the first child; whether it got as far as being connected."""
        heard, said = os.pipe()
        self._fork(said)
        os.close(said)
        with os.fdopen(heard, "rb") as pipe:
            return bool(pipe.read(1))

    def _fork(self, said: int | None) -> None:
        # A signal that came between the look at `_ending`, the fork and our note of it would not reach the child.
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            if self._ending:
                return
            child = os.fork()
            if child == 0:
                self._be_child(said)
            self._forked += 1
            self._running.add(child)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def _be_child(self, said: int | None) -> None:
        """Does not return."""
        code = 1
        try:
            os.setpgid(0, 0)
            os.close(self._held)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
            code = self._work(self._forked, self._lifeline, lambda: None if said is None else os.close(_written(said)))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:  # the child must not go on with what its parent does after the fork
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _wait(self) -> int:
        code = 0
        while self._running:
            child, status = os.wait()
            self._running.discard(child)
            ended = os.waitstatus_to_exitcode(status)
            if ended != 0:
                code = code or (ended if ended > 0 else 128 - ended)
                if self._running and not self._ending:
                    log.error("process %d ended with %d; stopping the other %d", child, ended, len(self._running))
                    self._send(signal.SIGTERM)
        return code

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        _ = frame
        self._send(signal.Signals(number))

    def _send(self, number: signal.Signals) -> None:
        self._ending = True
        for child in list(self._running):
            with suppress(ProcessLookupError):  # it has ended, and is about to be noted
                os.kill(child, number)


def _written(said: int) -> int:
    os.write(said, b"1")
    return said
