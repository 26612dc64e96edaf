"""Leases by observation: who has stood still for a lease, by the observer's own clock, over reads that all succeeded.

No wall clock and no key expiry takes part. A read that failed or came late clears everything seen so far: an observer
that was itself away cannot tell whether others stood still.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..metadata.contract import WorkerRow


class Seen(Struct, frozen=True):
    beat: int
    since: float  # seconds by the observer's clock


class Observations:
    """`lease`: seconds; reads may be at most a quarter of it apart."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[tuple[str, str], Seen] = {}
        self._last_read: float | None = None

    def forget(self) -> None:
        self._seen.clear()
        self._last_read = None

    def read(self, rows: Sequence[WorkerRow], *, asked: float, answered: float) -> list[WorkerRow]:
        """Rows whose counter has not changed for the lease. `asked`, `answered`: when the read began and ended; what it
        shows may be as old as `asked`, so a change is dated to `answered` and a standstill measured to `asked`."""
        gap = self._lease / 4
        if self._last_read is not None and answered - self._last_read > gap:
            self.forget()
        self._last_read = answered
        known, self._seen = self._seen, {}
        still: list[WorkerRow] = []
        for row in rows:
            key = (row.queue, row.boot)
            seen = known.get(key)
            if seen is None or seen.beat != row.beat:
                seen = Seen(row.beat, answered)
            elif asked - seen.since >= self._lease:
                still.append(row)
            self._seen[key] = seen
        return still
