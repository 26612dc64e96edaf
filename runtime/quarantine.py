"""How many messages a consumer may hold at a time when some message may be what closes its connection.

Whatever our decoder lets through, a message that ends the connection comes again with the next one, and every message
held beside it counts one more delivery towards the queue's limit: innocent messages would be dead-lettered for it.
After two losses within a minute the queue is read one message at a time until a hundred have passed; the suspect then
dies alone, of its own delivery limit.
"""

from __future__ import annotations

WITHIN_SECONDS = 60.0
PASSES = 100


class Quarantine:
    def __init__(self, prefetch: int) -> None:
        self._normal = prefetch
        self._lost_at: float | None = None
        self._left = 0

    @property
    def prefetch(self) -> int:
        return 1 if self._left else self._normal

    def lost(self, elapsed: float) -> None:
        """The consumer's connection was lost. `elapsed`: seconds of a clock that never goes back."""
        if self._left or (self._lost_at is not None and elapsed - self._lost_at <= WITHIN_SECONDS):
            self._left = PASSES
        self._lost_at = elapsed

    def passed(self) -> None:
        """A message was settled."""
        if self._left:
            self._left -= 1
