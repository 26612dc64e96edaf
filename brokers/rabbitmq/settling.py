"""Which deliveries of a channel are settled, and in how few words the server can be told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct


class Settled(Struct, frozen=True):
    """To be sent in this order: (delivery tag, requeue) of what is returned, (delivery tag, multiple) of the acks."""

    returned: list[tuple[int, bool]]
    acks: list[tuple[int, bool]]


class Settling:
    """`due` is called for each delivery that is settled; its `take` follows later, for all of them together."""

    def __init__(self, due: Callable[[], None]) -> None:
        self._due = due
        self._order: deque[int] = deque()  # delivered tags, back to the first one that is unsettled
        self._unsettled: set[int] = set()
        self._acked: list[int] = []  # since the last `take`
        self._returned: list[tuple[int, bool]] = []

    @property
    def done(self) -> bool:
        """Everything delivered is settled."""
        return not self._unsettled

    def delivered(self, tag: int) -> None:
        self._order.append(tag)
        self._unsettled.add(tag)

    def ack(self, tag: int) -> None:
        if tag in self._unsettled:
            self._unsettled.remove(tag)
            self._acked.append(tag)
            self._due()

    def give_back(self, tag: int, *, requeue: bool) -> None:
        if tag in self._unsettled:
            self._unsettled.remove(tag)
            self._returned.append((tag, requeue))
            self._due()

    def take(self) -> Settled | None:
        """One ack up to the first tag that is still unsettled, and one for each beyond it. `multiple` passes over what
        was returned before: the server has forgotten those, so they have to be sent first."""
        if not self._acked and not self._returned:
            return None
        unsettled, order, acked = self._unsettled, self._order, self._acked
        while order and order[0] not in unsettled:
            order.popleft()
        if not acked:
            acks = []
        elif not order:
            acks = [(max(acked), len(acked) > 1)]
        else:
            first = order[0]
            within = [tag for tag in acked if tag < first]
            acks = [(tag, False) for tag in acked if tag > first]
            if within:
                acks.insert(0, (max(within), len(within) > 1))
        settled = Settled(self._returned, acks)
        self._acked, self._returned = [], []
        return settled
