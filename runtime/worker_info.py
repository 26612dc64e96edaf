"""What a worker tells about itself with each heartbeat, for `callboard workers`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct


class Info(Struct, frozen=True, kw_only=True):
    """`copies_refused`: tickets of jobs that somebody had already run or was running, since the start."""

    host: str
    pid: int
    python: str
    queues: list[str]
    concurrency: int
    copies_refused: int = 0


class WorkerInfo:
    def __init__(self, queues: Sequence[str], concurrency: int) -> None:
        self.copies_refused = 0
        self._info = Info(
            host=socket.gethostname(),
            pid=os.getpid(),
            python=sys.version.split()[0],
            queues=list(queues),
            concurrency=concurrency,
        )

    def encode(self) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(self._info, copies_refused=self.copies_refused))


def decode_info(encoded: bytes) -> Info:
    """Raises msgspec.DecodeError for bytes that no worker wrote."""
    return msgspec.json.decode(encoded, type=Info)
