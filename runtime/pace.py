"""How much a worker does at a stretch. More at a time costs less for each job; what comes meanwhile waits longer."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace


class Pace(Struct, frozen=True, kw_only=True):
    """`starts`: jobs in one tick of the loop. `batch`: claims, or ends, in one call of the store. `calls`: claims under
    way. `least`: fewer are not claimed of a queue while another claim of it is under way. `ahead`: seconds in which
    what is claimed beyond the free slots starts, at the present speed. `end_calls`: full calls of ends under way for
    one queue. `unanswered`: ends beyond the slots at which nothing more is claimed."""

    starts: int
    batch: int
    calls: int
    end_calls: int
    least: int = 1
    ahead: float = 0.02
    unanswered: int = 128


# The store is busy with a call for a millisecond. Three claims: the answer to one, the work on the next, and one that
# waits its turn; more would only wait longer. Two calls of ends: a store that waits for a disk is not idle meanwhile.
ALONE = Pace(starts=24, batch=64, calls=3, end_calls=2)
# A job of one queue comes while the worker, and its store, are at work on those of another, and waits for that.
SHARED = Pace(starts=8, batch=32, calls=2, end_calls=1)


def pace_of(queues: Sequence[str], *, durable: bool) -> Pace:
    """`durable`: of the store, whose calls then take a disk's time each, whatever is in them."""
    pace = SHARED if len(queues) > 1 else ALONE
    if not durable:
        return pace
    larger = replace(pace, batch=2 * pace.batch)
    return larger if len(queues) > 1 else replace(larger, end_calls=3, least=48, ahead=0.08, unanswered=768)
