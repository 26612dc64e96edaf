"""Retention: forgets final jobs whose time to be kept is over, tombstones older than the adoption window, and dead
letters beyond a number, the oldest first.

Counts are kept by `finish` itself; what it leaves over, and ages, are seen to here. No scan: what is due stands first
in an index.
"""

from __future__ import annotations

from ..metadata.contract import MAX_BATCH, QueueControl
from ..metadata.contract import Retention as Pruning
from ..runtime.actor import Consumes, Stage
from ..runtime.dead_keeper import DeadLetterKeeper
from ..runtime.rounds import RoundsActor

ROUND_SECONDS = 5.0
DEAD_LETTERS_SECONDS = 30.0


class Retention(RoundsActor):
    kind = "retention"
    consumes = (
        Consumes("control.<instance>", "control", ("all", "<kind>", "<kind>.#")),
        Consumes("dead", "dead", ("#",)),
    )
    requires = (Pruning, QueueControl)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._pruning = stage.capability(Pruning)
        self._keeper = DeadLetterKeeper(stage)
        self._counted_at = -DEAD_LETTERS_SECONDS

    async def round(self) -> float:
        pruned = await self._pruning.prune(
            await self.queues.names(),
            now=self.stage.clock.now(),
            adoption_window=round(self.stage.settings.adoption_window_seconds * 1000),
            limit=MAX_BATCH,
        )
        if pruned.removed:
            self.stage.log.debug("forgot %d jobs", pruned.removed)
        await self._count_dead_letters()
        return 0.0 if pruned.more else ROUND_SECONDS

    async def _count_dead_letters(self) -> None:
        elapsed = self.stage.clock.elapsed()
        if elapsed - self._counted_at >= DEAD_LETTERS_SECONDS and not await self._keeper.trim():
            self._counted_at = elapsed
