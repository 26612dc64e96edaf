"""The queues that an actor looks after: those it was given, or every queue the store knows, read anew now and then."""

from __future__ import annotations

from ..metadata.contract import QueueControl
from .actor import Stage

READ_AGAIN_SECONDS = 2.0


class KnownQueues:
    def __init__(self, stage: Stage, *, read_again_seconds: float = READ_AGAIN_SECONDS) -> None:
        self._stage = stage
        self._read_again_seconds = read_again_seconds
        self._control = stage.capability(QueueControl)
        self._names: tuple[str, ...] = stage.options.queues
        self._fixed = bool(stage.options.queues)
        self._read_at: float | None = None
        self._added: dict[str, None] = {}  # since it was read

    async def names(self) -> tuple[str, ...]:
        """Raises StoreUnavailable."""
        if self.stale:
            # What is added, or asks for another look, while the store answers is newer than the answer.
            self._added = {}
            self._read_at = self._stage.clock.elapsed()
            try:
                found = await self._control.queues()
            except BaseException:
                self._read_at = None
                raise
            self._names = tuple(dict.fromkeys((*found, *self._added)))
        return self._names

    @property
    def stale(self) -> bool:
        """Whether `names` will ask the store."""
        elapsed = self._stage.clock.elapsed()
        return not self._fixed and (self._read_at is None or elapsed - self._read_at >= self._read_again_seconds)

    def __contains__(self, queue: object) -> bool:
        """Whether it is one of those looked after, as far as is known here."""
        return queue in self._names

    def read_again(self) -> None:
        """Ask the store with the next look: a queue may have been made, and nobody heard of it."""
        self._read_at = None

    def add(self, queue: str) -> None:
        """A command named a queue that was made since the last look."""
        if not self._fixed:
            self._added[queue] = None
            self._names = tuple(dict.fromkeys((*self._names, queue)))
