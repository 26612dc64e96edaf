"""DelayedScanner: makes delayed jobs ready when their time has come, retries among them.

    sleep until the next due time (at most `scan_interval`), or until a command says that an earlier one has appeared
    -> take_due: delayed -> waiting, next dispatch, outbox -> publish -> published

Any number of replicas: `take_due` hands each job to one of them. A crash between `take_due` and the publish leaves the
outbox entry, which a relay sends.
"""

from __future__ import annotations

from ..metadata.contract import MAX_BATCH, Delays, Jobs, QueueControl
from ..runtime.actor import Consumes, Stage
from ..runtime.rounds import RoundsActor

MAX_CLOCK_GAP_MS = 2000


class DelayedScanner(RoundsActor):
    kind = "delayed-scanner"
    consumes = (Consumes("control.<instance>", "control", ("all", "<kind>", "<kind>.#")),)
    publishes = ("jobs", "dead")
    requires = (Delays, Jobs, QueueControl)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._delays = stage.capability(Delays)
        self._gap_told = False

    async def round(self) -> float:
        now = self.stage.clock.now()
        due = await self._delays.take_due(
            await self.queues.names(), now=now, grace=self.stage.settings.grace, limit=MAX_BATCH
        )
        self._tell_gap(due.gap)
        if due.ready:
            # Awaited, so that a backlog of due jobs is taken no faster than the broker takes it.
            await self.stage.dispatcher.send(due.ready)
        interval = self.stage.settings.scan_interval
        if due.next_due is None:
            return interval
        # The later of the two clocks has to reach it: that of the store may be behind ours.
        left = (due.next_due - self.stage.clock.now() + max(0, -due.gap)) / 1000
        return min(interval, max(left, 0.0 if due.ready else 0.001))

    def _tell_gap(self, gap: int) -> None:
        apart = abs(gap) > MAX_CLOCK_GAP_MS
        if apart and not self._gap_told:
            self.stage.log.warning(
                "the store's clock and this machine's are %.1f s apart; delayed jobs follow the later one", gap / 1000
            )
        self._gap_told = apart
