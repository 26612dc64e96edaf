"""Jobs that a worker lost so often that one more loss ends them: each runs with nothing else in its process.

What kills a process takes all that runs there with it, and nobody can tell afterwards which of them it was. So a loss
counts against every job that ran there, but the last one that `max_stalled` allows is taken alone: then whoever is lost
has done it. What merely ran beside it completes, and what was only waiting here was never claimed, so nothing was lost.

    claim ──`alone`──> Suspects ──(nothing runs here any more)──> claim without the rule ──(ends)──> go on as before
                          │ ^
       what runs here goes on: for a lease, later for longer, nothing else is claimed; then the worker goes on with
       other jobs, four times as long. Meanwhile the suspect runs as soon as nothing else runs here, or its ticket is
       published again, for others that are idle.

Its ticket stays unsettled meanwhile. A worker that dies while a suspect waits costs the suspect nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from .actor import Stage
from .backlog import Pending
from .finisher import Spawn
from .spare import hand_on, others_are_idle

ClaimAlone = Callable[[str, Pending], Awaitable[None]]

LONGER = 3  # times that the wait for what runs here doubles: then it is 8 leases
HELD_SECONDS = 600.0  # RabbitMQ closes the channel of who holds a message for half an hour
REST = 4  # times that wait, in which other jobs are claimed
TOLD = 1000  # jobs of which is known what was logged


class Suspects:
    """`busy`: something runs here, or nothing may be started; `changed` is set whenever that may have changed, and
    `running` names it. `claim` starts what it claims; `spawn` runs what must not fail in silence."""

    def __init__(
        self,
        stage: Stage,
        *,
        busy: Callable[[], bool],
        running: Callable[[], str],
        changed: asyncio.Event,
        claim: ClaimAlone,
        spawn: Spawn,
    ) -> None:
        self._stage = stage
        self._busy = busy
        self._running = running
        self._changed = changed
        self._claim = claim
        self._spawn = spawn
        self._waiting: deque[tuple[str, Pending]] = deque()
        self._alone = False
        self._resting = False
        self._failures = 0  # waits in a row in which this worker did not come to rest
        self._told: dict[tuple[str, str], bool] = {}  # by queue and id: whether also that it cannot be run here

    def __bool__(self) -> bool:
        """Whether nothing else may start: one runs, or what runs here shall end first."""
        return self._alone or (bool(self._waiting) and not self._resting)

    @property
    def wait_is_over(self) -> bool:
        """Whether `run_each` has something to do."""
        return bool(self._waiting) and not (self._resting and self._busy())

    @property
    def alone_from(self) -> int | None:
        """For a claim: so often lost is too often for company. With `max_stalled` 0 the first loss ends a job, and what
        ran beside it is not told apart."""
        return max(1, self._stage.settings.max_stalled)

    def add(self, queue: str, pending: Pending) -> None:
        if (queue, pending.ticket.id) not in self._told:
            self._tell(queue, pending, stuck=False)
            self._stage.log.warning(
                "job %s of queue %s was lost by %d workers: it runs alone, when what runs here has ended",
                pending.ticket.id,
                queue,
                self.alone_from,
            )
        if self._is_known(queue, pending):  # sent again meanwhile, since others have overtaken it
            pending.parcel.settle()
            return
        self._waiting.append((queue, pending))
        self._changed.set()

    async def run_each(self) -> None:
        """Until none is left, or this worker is not idle in time, or the stage is stopping: what still waits then goes
        back to the broker unsettled."""
        self._alone = True
        try:
            while self._waiting and await self._idle(within=self._patience):
                self._failures = 0
                queue, pending = self._waiting.popleft()
                if pending.parcel.delivery.lost:  # on its way to somebody again
                    continue
                self._told.pop((queue, pending.ticket.id), None)
                await self._claim(queue, pending)
                await self._idle()
            if self._waiting and not self._stage.stopping.is_set():
                self._rest()
        finally:
            self._alone = False

    def _is_known(self, queue: str, copy: Pending) -> bool:
        ticket = copy.ticket
        return any(
            (where, one.ticket.id, one.ticket.dispatch) == (queue, ticket.id, ticket.dispatch)
            and not one.parcel.delivery.lost
            for where, one in self._waiting
        )

    @property
    def _patience(self) -> float:
        """Seconds. Where jobs take a minute each, and there is always one, a lease would never do."""
        return self._stage.settings.lease_seconds * (1 << min(self._failures, LONGER))

    async def _idle(self, within: float = float("inf")) -> bool:
        """Wait until nothing runs here; False: the stage is stopping, or it took longer."""
        clock, stopping = self._stage.clock, self._stage.stopping
        until = clock.elapsed() + within
        while self._busy() and not stopping.is_set() and clock.elapsed() < until:
            self._changed.clear()
            if within == float("inf"):
                await self._changed.wait()
            else:
                await self._stage.sleep(until - clock.elapsed(), self._changed)
        self._changed.set()
        return not self._busy() and not stopping.is_set()

    def _rest(self) -> None:
        """Go on with other jobs; others may be idle, and take these."""
        waited = self._patience
        self._failures += 1
        self._resting = True
        asyncio.get_running_loop().call_later(REST * waited, self._rested)
        for queue, pending in list(self._waiting):
            if not self._told.get((queue, pending.ticket.id)):
                self._tell(queue, pending, stuck=True)
                self._stage.log.warning(
                    "job %s of queue %s has to run alone, and this worker was not idle within %g s: %s. It goes on "
                    "with other jobs and tries again now and then; another that is idle takes the job before. If there "
                    "is none, start one, or give what takes so long a timeout, or a queue and a worker of its own",
                    pending.ticket.id,
                    queue,
                    waited,
                    self._running(),
                )
        self._spawn(self._hand_on_each())

    def _rested(self) -> None:
        self._resting = False
        self._changed.set()

    def _tell(self, queue: str, pending: Pending, *, stuck: bool) -> None:
        if len(self._told) >= TOLD:
            del self._told[next(iter(self._told))]
        self._told[queue, pending.ticket.id] = stuck

    async def _hand_on_each(self) -> None:
        """While this worker goes on with other jobs: to others that have nothing to do, or when the broker might soon
        ask for a ticket back. Published again it comes behind all that is there."""
        stage = self._stage
        while self._resting and not stage.stopping.is_set():
            for queue, pending in list(self._waiting):
                held = stage.clock.elapsed() - pending.parcel.arrived
                # What we cannot read in full we cannot send on.
                if not pending.ticket.later and (held >= HELD_SECONDS or await others_are_idle(stage, queue)):
                    await self._hand_on(queue, pending)
            await stage.sleep(stage.settings.lease_seconds)

    async def _hand_on(self, queue: str, pending: Pending) -> None:
        one = queue, pending
        if one not in self._waiting:  # it runs
            return
        self._waiting.remove(one)
        if pending.parcel.delivery.lost:
            return
        if not await hand_on(self._stage, queue, pending):
            self._waiting.append(one)
            self._changed.set()
