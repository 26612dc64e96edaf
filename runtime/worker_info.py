"""What a worker tells about itself with each heartbeat, for `callboard workers`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct


class Info(Struct, frozen=True, kw_only=True):
    host: str
    pid: int
    python: str
    queues: list[str]
    concurrency: int


class WorkerInfo:
    def __init__(self, queues: Sequence[str], concurrency: int) -> None:
        self._encoded = msgspec.json.encode(
            Info(
                host=socket.gethostname(),
                pid=os.getpid(),
                python=sys.version.split()[0],
                queues=list(queues),
                concurrency=concurrency,
            )
        )

    def encode(self) -> bytes:
        return self._encoded


def decode_info(encoded: bytes) -> Info:
    """Raises msgspec.DecodeError for bytes that no worker wrote."""
    return msgspec.json.decode(encoded, type=Info)
