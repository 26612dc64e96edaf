"""One moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..duration import Duration
from .contract import MAX_STEPS, Tally, before_first, checked_jitter, checked_moment, in_utc


@dataclass(frozen=True, slots=True, init=False)
class At:
    """One occurrence, at `moment` (an aware datetime, cut to whole milliseconds)."""

    moment: datetime
    jitter_ms: int

    def __init__(self, moment: datetime, *, jitter: Duration = 0) -> None:
        object.__setattr__(self, "moment", checked_moment(moment, "moment"))
        object.__setattr__(self, "jitter_ms", checked_jitter(jitter))

    @property
    def start(self) -> datetime:
        return self.moment

    @property
    def end(self) -> None:
        """No end: one that equals the moment would cut off all of the jitter."""
        return None

    def next_after(self, moment: datetime) -> datetime | None:
        return self.moment if before_first(moment, None) < self.moment else None

    def count(self, after: datetime, until: datetime, limit: int = MAX_STEPS) -> Tally:
        return Tally(count=int(before_first(after, None) < self.moment <= in_utc(until)))

    def anchored(self, moment: datetime) -> At:
        return self
