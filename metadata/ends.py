"""Ends of jobs, told by the store. See `contract.py` for the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


class EndsHearing(Protocol):
    async def add(self, queue: str) -> None:
        """Be told of this queue's ends from now on, too. StoreUnavailable, StoreError; where it fails, or is cancelled,
        nothing is told any more, of no queue."""
        ...

    async def sync(self) -> None:
        """Return once all that was told before this call has been heard, or `deaf` was called: a way may be lost
        without a word."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Ends(Protocol):
    """Tells that a job is final as soon as it is, to who waits for its result. At most once, and maybe never: the
    record says what holds. A store need not offer it."""

    async def hear(self, *, told: Callable[[str, str, bytes | None], None], deaf: Callable[[], None]) -> EndsHearing:
        """`told(queue, id, result)`: the result of a completed job, where it is small; else None. It must not block.
        `deaf`: called once when the way to the store is lost. StoreError: this store, or its user's rights, forbid
        it."""
        ...
