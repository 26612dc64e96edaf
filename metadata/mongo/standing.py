"""Whether a boot may claim in a queue: its row, the pause, and the server's clock, as one look finds them.

A look serves the claims of the next moments too, half of the claim window: each of them ends by the deadline that
belongs to the look (see `window.py`), however old it is by then. What would refuse a claim is always looked at anew.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from .connection import MongoConnection
from .names import WORKER, queue_name, row_name

_FIELDS = {"_id": 0, "name": 1, "state": 1, "dead": 1, "paused": 1, "marks": 1, "clock": {"$toLong": "$$NOW"}}
SERVES = 2  # a look serves for this part of the claim window; the rest is for the write
MOST = 1_000  # queues that are remembered


class Standing(Struct, frozen=True):
    """`clock`: the server's in ms, at `read_at` of the loop's time or just before; 0 where there is no row."""

    owner: str
    clock: int
    read_at: float
    alive: bool
    paused: bool
    marks: dict[str, int]  # the queue's watermarks, by priority

    @property
    def open(self) -> bool:
        """Whether it may claim, and nothing is held."""
        return self.alive and not self.paused

    def clock_now(self, time: float) -> int:
        """Never ahead of the server's."""
        return self.clock + int((time - self.read_at) * 1000)


class Standings:
    """What was found for each queue the last time."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._known: dict[str, Standing] = {}
        self._sent: set[str] = set()  # queues whose latest claims found jobs that were known to be sent

    async def look(self, queue: str, owner: str, *, anew: bool = False) -> Standing:
        known = self._known.get(queue)
        if known is not None and known.owner == owner and not anew:
            age = asyncio.get_running_loop().time() - known.read_at
            if age < self._connection.claim_window / SERVES / 1000:
                return known
        row, about = row_name(queue, owner), queue_name(queue)
        found = {one["name"]: one for one in await self._connection.find({"name": {"$in": [row, about]}}, _FIELDS)}
        ours = found.get(row)
        standing = Standing(
            owner=owner,
            clock=0 if ours is None else ours["clock"],
            read_at=asyncio.get_running_loop().time(),
            alive=ours is not None and ours["state"] == WORKER and "dead" not in ours,
            paused="paused" in found.get(about, ()),
            marks=found.get(about, {}).get("marks", {}),
        )
        self.forget(queue)
        if standing.open:
            while len(self._known) >= MOST:
                del self._known[next(iter(self._known))]
            self._known[queue] = standing
        return standing

    def forget(self, queue: str) -> None:
        self._known.pop(queue, None)

    def are_sent(self, queue: str) -> bool:
        """Whether the queue's jobs are likely to be known as sent when they are claimed."""
        return queue in self._sent

    def found(self, queue: str, *, sent: bool) -> None:
        if not sent or len(self._sent) >= MOST:
            self._sent.discard(queue)
        else:
            self._sent.add(queue)
