"""What is wrong, said when it begins and not for each try: a log that repeats itself hides what else it has to say."""

from __future__ import annotations

AGAIN_SECONDS = 60.0  # what was not heard of for so long is said again
MOST = 16  # remembered


class News:
    """Of one thing that is tried until it succeeds. Moments are seconds of any steady clock."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def is_new(self, what: str, moment: float) -> bool:
        before = self._heard.pop(what, None)
        if len(self._heard) >= MOST:
            del self._heard[next(iter(self._heard))]
        self._heard[what] = moment
        return before is None or moment - before >= AGAIN_SECONDS

    def over(self) -> bool:
        """All is well. Whether anything was wrong."""
        wrong = bool(self._heard)
        self._heard.clear()
        return wrong
