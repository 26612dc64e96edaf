"""What the capabilities of one memory store share."""

from __future__ import annotations

from collections.abc import Callable

from ..standing import Handed
from .queue import QueueData


class Queues(dict[str, QueueData]):
    """The queues by name; one comes into being when it is first named. `hearers`: by queue and boot, whom to tell of
    what was handed over."""

    def __init__(self) -> None:
        super().__init__()
        self.hearers: dict[tuple[str, str], Callable[[Handed], object]] = {}

    def __missing__(self, name: str) -> QueueData:
        data = self[name] = QueueData(name)
        return data
