"""What asyncio wants to be told of a future whose error nobody may be left to look at."""

from __future__ import annotations

import asyncio
from typing import Any


def looked_at(future: asyncio.Future[Any]) -> None:
    """A callback for its end, where who waits may give up before: asyncio would tell of an error that nobody saw."""
    if not future.cancelled():
        future.exception()
