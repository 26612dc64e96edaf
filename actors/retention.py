"""Retention: forgets final jobs whose time to be kept is over, and tombstones older than the adoption window.

Counts are kept by `finish` itself; what it leaves over, and ages, are seen to here. No scan: what is due stands first
in an index.
"""

from __future__ import annotations

from ..metadata.contract import MAX_BATCH, QueueControl
from ..metadata.contract import Retention as Pruning
from ..runtime.actor import Consumes, Stage
from ..runtime.rounds import RoundsActor

ROUND_SECONDS = 5.0


class Retention(RoundsActor):
    kind = "retention"
    consumes = (Consumes("control.<instance>", "control", ("all", "<kind>", "<kind>.#")),)
    requires = (Pruning, QueueControl)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._pruning = stage.capability(Pruning)

    async def round(self) -> float:
        pruned = await self._pruning.prune(
            await self.queues.names(),
            now=self.stage.clock.now(),
            adoption_window=round(self.stage.settings.adoption_window_seconds * 1000),
            limit=MAX_BATCH,
        )
        if pruned.removed:
            self.stage.log.debug("forgot %d jobs", pruned.removed)
        return 0.0 if pruned.more else ROUND_SECONDS
