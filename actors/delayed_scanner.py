"""DelayedScanner: makes delayed jobs ready when their time has come, retries among them.

    sleep until a little before the next due time; a command says when an earlier one has appeared
    -> take_due: delayed -> waiting, next dispatch, outbox
    -> keep each ticket until its job is due -> publish -> published

Any number of replicas: `take_due` hands each job to one of them, and `Turns` keeps the others from asking for it at the
same moment. Jobs are taken LOOK_MS before they are due, so that the store's answer is there in time, and with them
what is due within AHEAD_MS. Nothing starts them meanwhile: nobody else has a ticket of that dispatch, and the outbox
entry is due a grace later than the job.

    a crash between                 leaves                       mended by
    take_due .. its ticket is due   waiting, outbox              the relay, a grace after the job is due
    ticket due .. publish           the same                     the same
    publish .. published            a ticket, and the outbox     a copy, which the fence refuses

Jobs are taken while earlier ones are being published (`Outgoing`): of a backlog, however large, only a few batches are
held here, and it goes out as fast as the broker takes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..metadata.contract import MAX_BATCH, Delays, Jobs, QueueControl, Ready
from ..runtime.actor import Consumes, Stage
from ..runtime.outgoing import Outgoing
from ..runtime.rounds import RoundsActor
from ..runtime.turns import Turns
from ..runtime.wire import Command

LOOK_MS = 30  # in which a store answers, as a rule
AHEAD_MS = 60  # so a look takes several of a stream of jobs; for as long one waits that could be told to wait longer
MAX_CLOCK_GAP_MS = 2000


class DelayedScanner(RoundsActor):
    kind = "delayed-scanner"
    consumes = (Consumes("control.<instance>", "control", ("all", "<kind>", "<kind>.#")),)
    publishes = ("jobs",)
    requires = (Delays, Jobs, QueueControl)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._delays = stage.capability(Delays)
        self._turns = Turns(stage.random)
        self._next: int | None = None  # the earliest due time that is known of, ms
        self._behind = 0  # ms by which the store's clock is behind ours: the later of the two has to reach a due time
        self._look_now = True
        self._look_again = 0.0  # when to look whatever is known, by the clock's `elapsed`
        self._outgoing = Outgoing(stage)
        self._gap_told = False

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self._outgoing.end()

    def receive(self, command: Command) -> None:
        if command.run_at is None or command.queue not in self.queues:
            self._look_now = True
            super().receive(command)
        elif self._next is None or command.run_at < self._next:
            self._next = command.run_at
            self._woken.set()

    def hears_again(self) -> None:
        self._look_now = True
        super().hears_again()

    def missed(self) -> None:
        self._look_now = True

    async def round(self) -> float:
        if (pause := self._pause()) > 0:  # a command has told of a job that is not due yet
            return pause
        names = await self.queues.names()
        # Commands that come during the look are about what it may not have seen.
        expected, self._next, self._look_now = self._next, None, False
        now, asked = self.stage.clock.now(), self.stage.clock.elapsed()
        self._look_again = asked + self.stage.settings.scan_interval
        due = await self._delays.take_due(
            names, now=now, grace=self.stage.settings.grace, limit=MAX_BATCH, ahead=AHEAD_MS
        )
        self._note_gap(due.gap, took=self.stage.clock.elapsed() - asked)
        if due.ready:
            self._turns.got_some()
            if self.stage.metrics is not None and expected is not None:
                self.stage.metrics.scanned(late=max(0, self.stage.clock.now() - expected) / 1000)
            await self._send(due.ready, now, asked)
        elif expected is not None and expected + self._behind - LOOK_MS <= now:
            self._turns.came_late()
        if due.next_due is not None:
            self._next = due.next_due if self._next is None else min(self._next, due.next_due)
        return max(self._pause(), 0.0 if due.ready else 0.001)

    def _pause(self) -> float:
        """Seconds until the next look."""
        if self._look_now:
            return 0.0
        longest = self._look_again - self.stage.clock.elapsed()
        if self._next is None:
            return longest
        left = (self._next - self.stage.clock.now() + self._behind - LOOK_MS) / 1000 + self._turns.wait
        return min(longest, left)

    async def _send(self, ready: Sequence[Ready], now: int, asked: float) -> None:
        """`now`, `asked`: the wall clock and `elapsed` when the store was asked."""
        by_moment: dict[int, list[Ready]] = {}
        for job in ready:
            by_moment.setdefault(job.not_before, []).append(job)
        await self._outgoing.send(by_moment.pop(0, []))
        for moment in sorted(by_moment):
            at = moment + self._behind
            await self._outgoing.hold(by_moment[moment], at=at, latest=asked + (at - now) / 1000)

    def _note_gap(self, gap: int, *, took: float) -> None:
        """The store looked at its clock at some time before its answer. That counts where it is behind: clocks that
        agree to within an answer's time are taken for one."""
        self._behind = 0 if gap >= 0 else math.ceil(round(took * 1000, 3)) - gap
        apart = abs(gap) > MAX_CLOCK_GAP_MS
        if apart and not self._gap_told:
            self.stage.log.warning(
                "the store's clock and this machine's are %.1f s apart; delayed jobs follow the later one", gap / 1000
            )
        self._gap_told = apart
