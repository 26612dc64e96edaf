"""Tickets that have arrived and are not yet claimed, by queue, and which of them is next.

A message is a parcel of one ticket or many. It is acked once each of its tickets is settled: claimed, answered, or sent
on to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from ..brokers.message import Delivery
from .errors import ConfigurationError
from .wire import Bundle, Ticket


class Parcel:
    __slots__ = ("arrived", "at", "delivery", "epoch", "open", "single", "spare")

    def __init__(self, delivery: Delivery, bundle: Bundle, *, parts: int, arrived: float) -> None:
        self.delivery = delivery
        self.arrived = arrived
        self.at = bundle.at
        self.epoch = bundle.epoch
        self.open = parts
        self.single = self.open == 1
        self.spare = bundle.spare

    def settle(self) -> None:
        self.open -= 1
        if self.open == 0:
            self.delivery.ack()


class Pending:
    __slots__ = ("looks", "parcel", "ticket")

    def __init__(self, ticket: Ticket, parcel: Parcel) -> None:
        self.looks = 0  # how often its record was not there yet
        self.ticket = ticket
        self.parcel = parcel


class Lanes:
    """One queue's tickets: by priority (1 first), and within it as they came."""

    __slots__ = ("_lanes", "_size")

    def __init__(self) -> None:
        self._lanes: dict[int, deque[Pending]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Pending]:
        for priority in sorted(self._lanes):
            yield from self._lanes[priority]

    def extend(self, pending: Iterable[Pending]) -> None:
        for one in pending:
            self._lane(one).append(one)
            self._size += 1

    def put_back(self, pending: Sequence[Pending]) -> None:
        for one in reversed(pending):
            self._lane(one).appendleft(one)
            self._size += 1

    def take(self, limit: int) -> list[Pending]:
        """Up to `limit` that are still ours: what a lost connection brought is on its way to somebody again."""
        taken: list[Pending] = []
        for priority in sorted(self._lanes):
            lane = self._lanes[priority]
            while lane and len(taken) < limit:
                pending = lane.popleft()
                self._size -= 1
                if not pending.parcel.delivery.lost:
                    taken.append(pending)
        return taken

    def replace(self, pending: Iterable[Pending]) -> None:
        self._lanes.clear()
        self._size = 0
        self.extend(pending)

    def _lane(self, pending: Pending) -> deque[Pending]:
        lane = self._lanes.get(pending.ticket.priority)
        if lane is None:
            lane = self._lanes[pending.ticket.priority] = deque()
        return lane


class Backlog:
    """`weights` None: a queue is served when all before it are empty. Else each gets its share of what is taken, what
    an empty one leaves is the others', and one that was empty is next when something comes for it."""

    def __init__(self, queues: Sequence[str], weights: Sequence[int] | None) -> None:
        """ConfigurationError: not one weight of at least 1 for each queue."""
        if weights and (len(weights) != len(queues) or min(weights) < 1):
            raise ConfigurationError(
                f"each queue needs a weight of 1 or more; the queues are {list(queues)}, the weights {list(weights)}"
            )
        self._queues: dict[str, Lanes] = {queue: Lanes() for queue in queues}
        self._weights = dict(zip(queues, weights, strict=True)) if weights else None
        # Fair queueing: a queue's time is what was taken of it by its weight, and the one that is behind is next. One
        # that was empty comes in at the time of what was taken last, so that it has saved up nothing.
        self._taken = dict.fromkeys(queues, 0)
        self._time = 0.0

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._queues.values())

    def add(self, queue: str, parcel: Parcel, tickets: Sequence[Ticket]) -> None:
        waiting = self._queues[queue]
        if self._weights is not None and not waiting:
            self._taken[queue] = max(self._taken[queue], round(self._time * self._weights[queue]))
        waiting.extend(Pending(ticket, parcel) for ticket in tickets)

    @property
    def turn(self) -> str | None:
        """The queue that is next; None where nothing waits."""
        ready = [queue for queue, waiting in self._queues.items() if waiting]
        if not ready:
            return None
        weights = self._weights
        if weights is None or len(ready) == 1:
            return ready[0]
        return min(ready, key=lambda queue: self._taken[queue] / weights[queue])

    def lets_pass(self, queue: str) -> bool:
        """Whether a job of that queue need not wait for what is here of those before it."""
        if self._weights is not None:
            return True
        return next((name for name, waiting in self._queues.items() if waiting or name == queue), None) == queue

    def take(self, limit: int) -> tuple[str, list[Pending]]:
        """Up to `limit` tickets of the queue whose turn it is; none where nothing waits."""
        while (queue := self.turn) is not None:
            taken = self._queues[queue].take(limit)
            if self._weights is not None:
                self._time = self._taken[queue] / self._weights[queue]
                self._taken[queue] += len(taken)
            if taken:
                return queue, taken
        return "", []

    def take_again(self, queue: str, limit: int) -> list[Pending]:
        """Of what was taken and put back: it has had its turn."""
        return self._queues[queue].take(limit)

    def put_back(self, queue: str, pending: Sequence[Pending]) -> None:
        self._queues[queue].put_back(pending)

    def excess(self, queue: str, *, room: int, arrived_before: float) -> list[Pending]:
        """Take out what came in bundles before that moment and is beyond the next `room` tickets: others shall have
        it. A ticket that came alone stays: sending it on would gain nothing. So does what we cannot read in full."""
        kept: list[Pending] = []
        excess: list[Pending] = []
        for index, pending in enumerate(self._queues[queue]):
            parcel = pending.parcel
            settled = parcel.single or pending.ticket.later
            if index >= room and not settled and parcel.arrived < arrived_before:
                excess.append(pending)
            else:
                kept.append(pending)
        if excess:
            self._queues[queue].replace(kept)
        return excess

    def waiting(self, queue: str) -> int:
        return len(self._queues[queue])

    def clear(self, queue: str) -> None:
        """Forget a queue's tickets; they are unacked and go back with their consumer."""
        self._queues[queue].replace(())
