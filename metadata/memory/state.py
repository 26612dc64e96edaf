"""What the capabilities of one memory store share."""

from __future__ import annotations

from .queue import QueueData


class Queues(dict[str, QueueData]):
    """The queues by name; one comes into being when it is first named."""

    def __missing__(self, name: str) -> QueueData:
        data = self[name] = QueueData(name)
        return data
