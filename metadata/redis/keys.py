"""Names of keys. All keys of a job queue carry its name as hash tag, so they share a slot of a cluster.

Names are percent-encoded: a brace, colon or NUL in a queue's name cannot move a key to another slot or into another
queue. Ids need no care, since they are never part of a key: they are fields and members.
"""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct


class Keys(Struct, frozen=True):
    namespace: str

    def of_queue(self, queue: str) -> str:
        # An empty tag would hash the whole key; a lone % is no other queue's encoding.
        return f"{self._space}:{{{quote(queue, safe='') or '%'}}}:"

    @property
    def queues(self) -> str:
        return f"{self._space}:queues"

    @property
    def epoch(self) -> str:
        return f"{self._space}:epoch"

    @property
    def _space(self) -> str:
        return quote(self.namespace, safe=":")
