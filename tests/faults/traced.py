"""A store whose flushes are slow, or fail: strace holds up, or answers, its calls of fdatasync.

    with TracedRedis(folder, strace=Strace(folder / "flushes", slow(5)), appendfsync="always") as redis:
        redis.strace.injected()     # how many flushes it has met

The kernel asks strace about that one call only (--seccomp-bpf), so all others cost what they did. It is a child of the
server, which keeps its own process id, and goes with it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from servers import MongoServer, ProgramMissing, RedisServer

PROBE_SECONDS = 30.0


class CannotTrace(Exception):
    """No process can be traced here; the message says why, and what to do."""


def slow(milliseconds: int) -> str:
    """Each flush takes so much longer."""
    return f"delay_enter={milliseconds}ms"


def failing(number: int) -> str:
    """The so-manieth flush of each of the server's threads fails: the disk says EIO."""
    return f"error=EIO:when={number}"


class Strace:
    """`fault`: of the server's next life, None for none. `log`: one line for each flush. Raises ProgramMissing,
    CannotTrace."""

    def __init__(self, log: Path, fault: str | None) -> None:
        self.fault = fault
        self._log = log
        self._program = shutil.which("strace")
        if self._program is None:
            raise ProgramMissing("strace")
        probe = subprocess.run(
            [*self._command(self._program, slow(1), Path("/dev/null")), "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        if probe.returncode or probe.stderr:
            raise CannotTrace(
                f"strace cannot trace here ({probe.stderr.strip()}): it needs strace 5.3 or later and the right to "
                "ptrace, which a container has with --cap-add SYS_PTRACE"
            )

    def around(self, arguments: Sequence[str]) -> Sequence[str]:
        """That command, under the fault."""
        if self.fault is None:
            return arguments
        assert self._program is not None
        return [*self._command(self._program, self.fault, self._log), *arguments]

    def injected(self) -> int:
        """How many flushes were held up, or failed, in all lives."""
        if not self._log.exists():
            return 0
        return sum(line.endswith(("(DELAYED)", "(INJECTED)")) for line in self._log.read_text().splitlines())

    @staticmethod
    def _command(program: str, fault: str, log: Path) -> list[str]:
        # -A: a later life writes behind an earlier one. --signal=none, -qq: nothing but flushes is told.
        quiet = ["-A", "-o", str(log), "-qq", "--signal=none"]
        return [
            program,
            "-D",
            "-f",
            "--seccomp-bpf",
            *quiet,
            "-e",
            "trace=fdatasync",
            "-e",
            f"inject=fdatasync:{fault}",
        ]


class TracedRedis(RedisServer):
    def __init__(
        self,
        folder: Path,
        *,
        strace: Strace,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        **options: str,
    ) -> None:
        super().__init__(folder, port=port, environment=environment, **options)
        self.strace = strace

    def arguments(self) -> Sequence[str]:
        return self.strace.around(super().arguments())


class TracedMongo(MongoServer):
    def __init__(self, folder: Path, *, strace: Strace, replica_set: bool = False) -> None:
        super().__init__(folder, replica_set=replica_set)
        self.strace = strace

    def arguments(self) -> Sequence[str]:
        return self.strace.around(super().arguments())
