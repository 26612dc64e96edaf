"""Tickets that have arrived and are not yet claimed, by queue, and which of them is next.

A message is a parcel of one ticket or many. It is acked once each of its tickets is settled: claimed, answered, or sent
on to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from ..brokers.message import Delivery
from .wire import Bundle, Ticket


class Parcel:
    __slots__ = ("arrived", "at", "delivery", "epoch", "open", "single")

    def __init__(self, delivery: Delivery, bundle: Bundle, *, arrived: float) -> None:
        self.delivery = delivery
        self.arrived = arrived
        self.at = bundle.at
        self.epoch = bundle.epoch
        self.open = len(bundle.jobs)
        self.single = self.open == 1

    def settle(self) -> None:
        self.open -= 1
        if self.open == 0:
            self.delivery.ack()


class Pending:
    __slots__ = ("parcel", "ticket")

    def __init__(self, ticket: Ticket, parcel: Parcel) -> None:
        self.ticket = ticket
        self.parcel = parcel


class Backlog:
    """`weights` None: a queue is served when all before it are empty. Else each gets its share of what is taken, and
    what an empty one leaves is the others'."""

    def __init__(self, queues: Sequence[str], weights: Sequence[int] | None) -> None:
        self._queues: dict[str, deque[Pending]] = {queue: deque() for queue in queues}
        self._weights = dict(zip(queues, weights, strict=True)) if weights else None
        self._credit = dict.fromkeys(queues, 0.0)

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._queues.values())

    def add(self, queue: str, parcel: Parcel, tickets: Sequence[Ticket]) -> None:
        self._queues[queue].extend(Pending(ticket, parcel) for ticket in tickets)

    def take(self, limit: int) -> tuple[str, list[Pending]]:
        """Up to `limit` tickets of the queue whose turn it is, oldest first; none where nothing waits."""
        self._drop_lost()
        queue = self._turn()
        if queue is None:
            return "", []
        waiting = self._queues[queue]
        taken = [waiting.popleft() for _ in range(min(limit, len(waiting)))]
        if self._weights is not None:
            self._credit[queue] -= len(taken)
        return queue, taken

    def put_back(self, queue: str, pending: Sequence[Pending]) -> None:
        self._queues[queue].extendleft(reversed(pending))

    def excess(self, *, room: int, arrived_before: float) -> Iterator[tuple[str, Pending]]:
        """Take out what came in bundles before that moment and is beyond the next `room` tickets: others shall have
        it. A ticket that came alone stays: sending it on would gain nothing."""
        for queue, waiting in self._queues.items():
            kept: deque[Pending] = deque()
            for index, pending in enumerate(waiting):
                parcel = pending.parcel
                if index >= room and not parcel.single and parcel.arrived < arrived_before and not parcel.delivery.lost:
                    yield queue, pending
                else:
                    kept.append(pending)
            self._queues[queue] = kept
            room = max(0, room - len(kept))

    def clear(self, queue: str) -> list[Pending]:
        """Forget a queue's tickets; they are unacked and go back with their consumer."""
        waiting = list(self._queues[queue])
        self._queues[queue].clear()
        return waiting

    def _drop_lost(self) -> None:
        for waiting in self._queues.values():
            while waiting and waiting[0].parcel.delivery.lost:
                waiting.popleft()

    def _turn(self) -> str | None:
        ready = [queue for queue, waiting in self._queues.items() if waiting]
        if not ready:
            return None
        if self._weights is None or len(ready) == 1:
            return ready[0]
        if all(self._credit[queue] <= 0 for queue in ready):
            # A new round. What an idle queue has saved up is forgotten, so that it cannot starve the others later.
            total = sum(self._weights[queue] for queue in ready)
            for queue in self._queues:
                self._credit[queue] = 0.0
            for queue in ready:
                self._credit[queue] = 128.0 * self._weights[queue] / total
        return max(ready, key=lambda queue: self._credit[queue])
