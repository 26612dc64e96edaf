"""Who of several equal replicas looks first, without any of them knowing of the others.

Work that is due at one moment wakes every replica at that moment; one gets it, and the others have asked the store for
nothing. So who found the work gone looks a little later the next time, and who found some looks in time again. With
replicas that are all well, one of them does the work; when it is away, another one is late by that little, once.
"""

from __future__ import annotations

from random import Random

AT_FIRST_SECONDS = 0.012


class Turns:
    """`wait`: seconds by which to look later than the work is due. It doubles while others are always first, up to
    `most`, which is to be about as long as they work."""

    def __init__(self, random: Random, *, most: float = AT_FIRST_SECONDS) -> None:
        self.wait = 0.0
        self._most = most
        self._random = random

    def got_some(self) -> None:
        self.wait = 0.0

    def came_late(self) -> None:
        ceiling = min(self._most, max(AT_FIRST_SECONDS, 2 * self.wait))
        self.wait = self._random.uniform(ceiling / 3, ceiling)
