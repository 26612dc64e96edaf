"""A Redis that belongs to one test: started with the options it wants, killed and paused at will."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lacking import do_without
from servers import ProgramMissing, RedisServer

T = TypeVar("T")


def private_redis(folder: Path, **options: str) -> RedisServer:
    """Not started yet. Skips the test where redis-server is not installed, fails it in CI."""
    return require(lambda: RedisServer(folder, **options))


def require(make: Callable[[], T]) -> T:
    """What `make` returns; where its program is not installed the test is skipped, in CI it fails."""
    try:
        return make()
    except ProgramMissing as missing:
        do_without(str(missing))
