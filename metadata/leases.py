"""The capability `Leases`: named locks that hand out fencing tokens, for what users must not do twice at a time.

No clock ends a lock. Its holder raises a counter; who waits for it watches (fence, counter), and takes it where they
stood still for the holder's ttl by the watcher's own clock, by compare-and-set on the very values it saw: a store that
was away, or a clock that jumps, makes nobody lose a lock. A holder that was away for longer finds another one in its
place. What it does then is refused by whoever compares fences.

The rules of `contract.py` hold here too: one atomic step, repeatable, no scan.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from msgspec import Struct

FREE_FOR = 24 * 3600 * 1000  # ms that the fence of a lock which nobody holds is remembered for, at least


class Still(Struct, frozen=True):
    """What a waiter saw unchanged for the holder's ttl."""

    fence: int
    beat: int


class Lock(Struct, frozen=True):
    """`granted`: the asker holds it, under `fence`. Else another one does, and the values are theirs. `ttl` in ms."""

    granted: bool
    fence: int
    beat: int
    ttl: int


@runtime_checkable
class Leases(Protocol):
    """`holder` is a random name, new for each time somebody wants a lock."""

    async def take(self, name: str, holder: str, *, ttl: int, still: Still | None, now: int) -> Lock:
        """Take a lock that is free, or whose (fence, beat) still are `still`. A repeat by its holder: granted, with the
        same fence.

        The fence is max(fence + 1, the store's clock in ms): it grows each time a lock changes hands, also over a store
        that lost its data. What nobody has held for a day may be forgotten. StoreUnavailable also where the store
        can be read but refuses writes: a counter that nobody can raise tells nothing."""
        ...

    async def renew(self, name: str, holder: str, *, fence: int) -> bool:
        """Raise the counter. False: another one holds it, or nobody; nothing was changed."""
        ...

    async def release(self, name: str, holder: str, *, fence: int, now: int) -> bool:
        """False: it was not held under that fence, also for a repeat."""
        ...
