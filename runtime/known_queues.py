"""The queues that an actor looks after: those it was given, or every queue the store knows, read anew now and then."""

from __future__ import annotations

from ..metadata.contract import QueueControl
from .actor import Stage

READ_AGAIN_SECONDS = 2.0


class KnownQueues:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._control = stage.capability(QueueControl)
        self._names: tuple[str, ...] = stage.options.queues
        self._fixed = bool(stage.options.queues)
        self._read_at: float | None = None

    async def names(self) -> tuple[str, ...]:
        """Raises StoreUnavailable."""
        elapsed = self._stage.clock.elapsed()
        if not self._fixed and (self._read_at is None or elapsed - self._read_at >= READ_AGAIN_SECONDS):
            self._names = tuple(await self._control.queues())
            self._read_at = elapsed
        return self._names

    def add(self, queue: str) -> None:
        """A command named a queue that was made since the last look."""
        if not self._fixed and queue not in self._names:
            self._names = (*self._names, queue)
