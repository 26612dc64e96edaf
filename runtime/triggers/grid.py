"""A grid: the moments `first`, `first + step`, `first + 2 * step`, ... in milliseconds since the Unix epoch."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import gcd

from msgspec import Struct

from .contract import EPOCH, MILLISECOND


class Grid(Struct, frozen=True, kw_only=True):
    first: int
    step: int

    def next_after(self, moment: int) -> int:
        """Division, not a loop: after years of downtime the answer is still one step away."""
        if moment < self.first:
            return self.first
        return moment + self.step - (moment - self.first) % self.step

    def count_until(self, moment: int) -> int:
        return 0 if moment < self.first else (moment - self.first) // self.step + 1

    def meeting(self, other: Grid) -> Grid | None:
        """The moments that both have, which are a grid again; None when there are none.

        By the Chinese remainder theorem: first + k * step = other.first (mod other.step) has solutions only if
        gcd(step, other.step) divides the distance, and then one in each least common multiple.
        """
        divisor = gcd(self.step, other.step)
        distance = other.first - self.first
        if distance % divisor:
            return None
        steps = distance // divisor * pow(self.step // divisor, -1, other.step // divisor)
        multiple = self.step // divisor * other.step
        meeting = self.first + self.step * (steps % (other.step // divisor))
        both_begun = max(self.first, other.first)
        return Grid(first=meeting + -(-(both_begun - meeting) // multiple) * multiple, step=multiple)


def to_ms(moment: datetime) -> int:
    """Whole milliseconds, rounded down."""
    return (moment - EPOCH) // MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
