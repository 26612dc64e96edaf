"""Who of several equal replicas looks first, without any of them knowing of the others.

Work that is due at one moment wakes every replica at that moment; one gets it, and the others have asked the store for
nothing. So who found the work gone looks a little later the next time, and who found some looks in time again. With
replicas that are all well, one of them does the work; when it is away, another one is late by LATEST_SECONDS once.
"""

from __future__ import annotations

from random import Random

EARLIEST_SECONDS = 0.004  # by then a scanner has taken what was due, also on MongoDB
LATEST_SECONDS = 0.012


class Turns:
    """`wait`: seconds by which to look later than the work is due."""

    def __init__(self, random: Random) -> None:
        self.wait = 0.0
        self._random = random

    def got_some(self) -> None:
        self.wait = 0.0

    def came_late(self) -> None:
        self.wait = self._random.uniform(EARLIEST_SECONDS, LATEST_SECONDS)
