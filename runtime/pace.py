"""How much a worker does at a stretch. More at a time costs less for each job; what comes meanwhile waits longer."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Pace(Struct, frozen=True, kw_only=True):
    """`starts`: jobs in one tick of the loop. `batch`: claims, or ends, in one call of the store. `calls`: claims under
    way."""

    starts: int
    batch: int
    calls: int


# The store is busy with a call for a millisecond. Three claims: the answer to one, the work on the next, and one that
# waits its turn; more would only wait longer.
ALONE = Pace(starts=24, batch=64, calls=3)
# A job of one queue comes while the worker, and its store, are at work on those of another, and waits for that.
SHARED = Pace(starts=8, batch=32, calls=2)


def pace_of(queues: Sequence[str]) -> Pace:
    return ALONE if len(queues) == 1 else SHARED
