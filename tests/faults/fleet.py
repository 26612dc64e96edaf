"""A deployment of real processes under test: workers, the other actors and producers, each killed and started by name.

    fleet = Fleet(folder, Deployed(namespace="n", store="redis://...", broker="amqp://...", settings=FAST))
    fleet.start("worker-1", actor("worker", app="faults.workload:app"))
    fleet["worker-1"].kill()
    fleet["worker-1"].start()
    fleet.close()

Each process leads a group of its own and never outlives the tests (servers.OwnedProcess). What it prints goes to a file
of its own, one for all its lives; `complaints` finds what must not be in there. Calls block, for milliseconds; only
`stop` waits for a process to end in order.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from servers import OwnedProcess

TESTS = Path(__file__).parents[1]
LEASE_SECONDS = 2.0
TAIL_BYTES = 6000
CONNECTED = "connected; running"  # of an actor process that has reached broker and store
SERVES = " serves "  # of a worker that has begun to consume
ENDED = "ended in order"  # the last word of an actor process that was not killed

# Every time of the runtime that a fault test would have to wait for, scaled down alike.
FAST = {
    "CALLBOARD_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "CALLBOARD_RELAY_GRACE_SECONDS": "0.2",
    "CALLBOARD_SCAN_INTERVAL": "0.2",
    "CALLBOARD_RECONCILE_GRACE_SECONDS": "1",
    "CALLBOARD_OVERTAKEN_SECONDS": "2",
}

_TRACEBACK = "Traceback (most recent call last):"


class Deployed(Struct, frozen=True, kw_only=True):
    """Where the processes find what they work on. `settings`: CALLBOARD_* variables for all of them."""

    namespace: str
    store: str
    broker: str
    settings: Mapping[str, str]


class Member:
    """One process of the fleet, over all its lives."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.lives = 0
        self._command = command
        self._environment = environment
        self._process: OwnedProcess | None = None
        self._born_at = 0  # in the log

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """A new life; returns before the process has done anything."""
        assert not self.running, f"{self.name} runs already"
        if self._process is not None:
            self._process.kill()  # one that ended by itself still has its keeper
        self.lives += 1
        self._born_at = self.log.stat().st_size if self.log.exists() else 0
        self._process = OwnedProcess(self._command, environment=self._environment, log=self.log)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        assert self._process is not None, f"{self.name} was never started"
        self._process.kill()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} was never started"
        self._process.signal(number)

    def stop(self) -> None:
        """SIGTERM, then wait; SIGKILL after servers.STOP_SECONDS; its log then lacks ENDED."""
        if self._process is not None:
            self._process.terminate()

    def said(self, text: str) -> bool:
        """Whether it has printed that in its present life."""
        return text in self.output()[self._born_at :]

    def output(self) -> str:
        # One character a byte, so that places in the file are places in the text.
        return self.log.read_text("latin-1") if self.log.exists() else ""


class Fleet:
    """`folder` takes one log file for each process."""

    def __init__(self, folder: Path, deployed: Deployed, **environment: str) -> None:
        self.deployed = deployed
        self._folder = folder
        self._members: dict[str, Member] = {}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")},
            **deployed.settings,
            "CALLBOARD_NAMESPACE": deployed.namespace,
            "CALLBOARD_STORE": deployed.store,
            "CALLBOARD_BROKER": deployed.broker,
            "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            **environment,
        }
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, arguments: Sequence[str], **environment: str) -> Member:
        """Start a new member: `python <arguments>`, with tests/ to import from. `environment` is added to what all
        members get: another CALLBOARD_BROKER, say, which is a proxy of its own."""
        assert name not in self._members, f"there is a member {name} already"
        member = Member(
            name, [sys.executable, *arguments], {**self._environment, **environment}, self._folder / f"{name}.log"
        )
        self._members[name] = member
        member.start()
        return member

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def named(self, prefix: str) -> list[Member]:
        """Members whose names begin so, in the order of their first start."""
        return [member for member in self if member.name.startswith(prefix)]

    def stop(self) -> float:
        """SIGTERM to all at once, then wait for each; the seconds it took."""
        since = time.monotonic()
        for member in self:
            if member.running:
                member.signal(signal.SIGTERM)
        for member in self:
            member.stop()
        return time.monotonic() - since

    def close(self) -> None:
        for member in self:
            if member.lives:
                member.kill()

    def complaints(self, *allowed: str) -> list[str]:
        """Tracebacks in the logs, but for those in which one of the regular expressions `allowed` is found."""
        found = [(member.name, trace) for member in self for trace in tracebacks(member.output())]
        return [f"{name}: {trace}" for name, trace in found if not any(re.search(one, trace) for one in allowed)]

    def lines(self, prefix: str, pattern: str) -> list[str]:
        """Lines of the logs of members named so in which the regular expression is found."""
        return [
            f"{member.name}: {line}"
            for member in self.named(prefix)
            for line in member.output().splitlines()
            if re.search(pattern, line)
        ]

    def tails(self) -> str:
        """The end of every log, to be shown where a test has failed."""
        return "\n".join(f"--- {m.name} ({m.lives} lives)\n{m.output()[-TAIL_BYTES:]}" for m in self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()
        if kind is not None:
            print(self.tails())


def tracebacks(output: str) -> Iterator[str]:
    """Each with the line of its exception, whether it was logged (its lines then begin with "  | ") or printed."""
    trace: list[str] = []
    for line in output.splitlines():
        if trace or _TRACEBACK in line:
            trace.append(line)
            if len(trace) > 1 and not line.startswith((" ", "  | ")):
                yield "\n".join(trace)
                trace = []
    if trace:
        yield "\n".join(trace)


def actor(*kinds: str, app: str, queues: Sequence[str] = (), concurrency: int = 20) -> list[str]:
    """The arguments that make a process of a fleet run these actors."""
    # With weights: without them, the first queue's jobs would go before all others, also before those that were killed.
    named = [part for queue in queues for part in ("--queue", f"{queue}=1")]
    return ["-m", "callboard", "run", *kinds, "--app", app, "--concurrency", str(concurrency), *named]
