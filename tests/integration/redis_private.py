"""A Redis that belongs to one test: started with the options it wants, killed and paused at will."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servers import ProgramMissing, RedisServer


def private_redis(folder: Path, **options: str) -> RedisServer:
    """Not started yet. Skips the test where redis-server is not installed, fails it in CI."""
    try:
        return RedisServer(folder, **options)
    except ProgramMissing as missing:
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
