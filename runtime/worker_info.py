"""What a worker tells about itself with each heartbeat, for `callboard workers`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct


class Info(Struct, frozen=True, kw_only=True):
    """Since the start: `copies_refused`, tickets of jobs that somebody had already run or was running; `late_finishes`,
    ends of runs that were refused since their lease was lost. `waiting`: by queue, tickets that it holds and has no
    slot for yet; queues without any are left out. `loop_lag`: seconds that its event loop was late at most since the
    heartbeat before."""

    host: str
    pid: int
    python: str
    queues: list[str]
    concurrency: int
    copies_refused: int = 0
    late_finishes: int = 0
    loop_lag: float = 0.0
    waiting: dict[str, int] = {}


class WorkerInfo:
    """`waiting` counts a queue's unclaimed tickets; the others tell what their names say. All are called from the
    heart's thread."""

    def __init__(
        self,
        queues: Sequence[str],
        concurrency: int,
        *,
        waiting: Callable[[str], int],
        late_finishes: Callable[[], int] = lambda: 0,
        loop_lag: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.copies_refused = 0
        self._late_finishes = late_finishes
        self._loop_lag = loop_lag
        self._queues = tuple(queues)
        self._waiting = waiting
        self._info = Info(
            host=socket.gethostname(),
            pid=os.getpid(),
            python=sys.version.split()[0],
            queues=list(queues),
            concurrency=concurrency,
        )

    def encode(self) -> bytes:
        held = {queue: count for queue in self._queues if (count := self._waiting(queue))}
        info = msgspec.structs.replace(
            self._info,
            copies_refused=self.copies_refused,
            late_finishes=self._late_finishes(),
            loop_lag=round(self._loop_lag(), 3),
            waiting=held,
        )
        return msgspec.json.encode(info)


def decode_info(encoded: bytes) -> Info:
    """Raises msgspec.DecodeError for bytes that no worker wrote."""
    return msgspec.json.decode(encoded, type=Info)
