"""A worker's standing claims: what it leaves with a store that can hand jobs over as they are recorded.

    free slots ──stand──> store          producer ──enqueue──> store ──told──> a run begins
                                             no ticket, no claim, while there is next to nothing to do

It stands in each of its queues for as many jobs as it has room for, eight at most, and again once half have come.
Where it has no room it does not stand: work comes by tickets then in any case, and standing for each slot that is free
for a moment would cost the store more than it saves, so it waits a little before it stands there again.

What a crash leaves is what one between a claim and its answer leaves:

    handed .. told      active, and nobody runs it: a ticket, if any, is answered `mine`; forgotten.py gives it back,
                        which is asked to look as soon as the way to the store is there again
    told .. finish      a run like any other, under this boot's lease
    boot declared dead  its standing claims are nothing any more; what it was handed is recovered with all it holds
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from ..metadata.errors import StoreError, StoreUnavailable
from ..metadata.standing import Handed, Hearing, StandingClaims
from .actor import Stage
from .wire import Ticket

MOST = 8  # jobs of a queue that may be handed over before this worker says again that it has room
REST_SECONDS = 0.2  # without a standing claim, after all room was taken
FEW_QUEUES, REVIEW_SECONDS = 8, 0.005  # of more than so many, no more than one look at all within that time
REMEMBERED = 256  # jobs that were handed over
HANDED_DISPATCH = 1  # of the ticket that a job would have had, which a standing claim got
FAULT_SECONDS = 60.0  # after a fault of the store, until it is tried again
LISTEN_SECONDS = 5.0  # after so long without a change it asks whether the way is still there,
ANEW_SECONDS = 60.0  # and now and then stands anew: a store that was emptied has forgotten it


class _Forbidden(Exception):
    """Hearing is, by the store or its user's rights."""


class Standing:
    """`boot`: under which the worker claims. `room`: how many jobs of a queue may come, 0 or less where none must, None
    where no more than may come already. `take`: starts what was handed over, to that boot; `missed`: called when
    something may have been handed over and not told."""

    def __init__(
        self,
        stage: Stage,
        *,
        queues: Sequence[str],
        boot: Callable[[], str],
        room: Callable[[str], int | None],
        take: Callable[[str, Handed], None],
        missed: Callable[[], None],
    ) -> None:
        self._stage = stage
        self._claims = stage.offered(StandingClaims)
        self._queues = tuple(queues)
        self._boot = boot
        self._room = room
        self._take = take
        self._missed = missed
        self._hearing: Hearing | None = None
        self._stood = dict.fromkeys(self._queues, 0)  # what each may yet hand over, as far as we know
        self._handed: dict[tuple[str, str], int] = {}  # when those were created that were handed over last
        self._rests_until: dict[str, float] = {}  # by clock.elapsed()
        self._stood_at = 0.0  # anew in all of them, by clock.elapsed()
        self._reviewed = 0.0
        self._was_deaf = False  # for a while
        self._wanted = asyncio.Event()
        self._over = False

    @property
    def hears(self) -> bool:
        return self._hearing is not None

    def review(self) -> None:
        """Slots were taken or left: whether to stand for more, or for nothing. Costs next to nothing."""
        if self._hearing is None or self._wanted.is_set():
            return
        if len(self._queues) > FEW_QUEUES:
            now = self._stage.clock.elapsed()
            if now < self._reviewed + REVIEW_SECONDS:
                return
            self._reviewed = now
        if self._changes():
            self._wanted.set()

    async def heard(self) -> None:
        """Return once what was handed over before has been told, or cannot be told any more."""
        if self._hearing is not None:
            await self._hearing.sync()

    def remember(self, ticket: Ticket) -> None:
        """The ticket that a job which was handed over would have had."""
        if len(self._handed) == REMEMBERED:
            del self._handed[next(iter(self._handed))]
        self._handed[ticket.queue, ticket.id] = ticket.created_at

    def was_handed(self, queue: str, ticket: Ticket) -> bool:
        """Whether this is the ticket, told once, of a job that was handed over: it was sent while that was recorded."""
        key = (queue, ticket.id)
        if ticket.dispatch != HANDED_DISPATCH or self._handed.get(key) != ticket.created_at:
            return False
        del self._handed[key]
        return True

    def end(self) -> None:
        """`serve` is to stand for nothing any more, hear what was handed over until then, and return."""
        self._over = True
        self._wanted.set()

    async def serve(self) -> None:
        claims, stage, failures, fault = self._claims, self._stage, 0, ""
        if claims is None:
            return
        while not self._over:
            began = stage.clock.elapsed()
            try:
                await self._serve(claims, self._boot())
            except StoreUnavailable:  # whoever works with it tells that
                if stage.stopping.is_set():
                    return
            except _Forbidden as error:
                stage.log.warning("jobs come by their tickets alone: %s", error)
                return
            except StoreError as error:
                if str(error) != fault:
                    stage.log.error("jobs come by their tickets alone for now: %s", error)
                fault = str(error)
                await stage.sleep(FAULT_SECONDS)
            failures = failures + 1 if stage.clock.elapsed() - began < LISTEN_SECONDS else 0
            if failures and not self._over:
                await stage.sleep(stage.backoff(failures))

    async def _serve(self, claims: StandingClaims, boot: str) -> None:
        """While the way to the store is there, and the boot is ours."""
        lost = asyncio.Event()

        def deaf() -> None:
            lost.set()
            self._wanted.set()

        try:
            hearing = await claims.hear(boot, self._queues, told=partial(self._told, boot), deaf=deaf)
        except StoreError as error:
            raise _Forbidden(str(error)) from error
        if self._was_deaf:
            self._missed()
        self._hearing, self._was_deaf = hearing, True
        self._stood_at = self._stage.clock.elapsed()
        failures = 0
        try:
            while not lost.is_set() and boot == self._boot() and not self._over:
                try:
                    await self._stand(claims, boot, hearing)
                    failures = 0
                except StoreUnavailable:  # what it handed over before is still heard
                    self._stood = dict.fromkeys(self._queues, 0)
                    failures += 1
                    await self._stage.sleep(self._stage.backoff(failures))
            if self._over and not lost.is_set():
                for queue in self._queues:
                    await claims.stand(queue, boot, jobs=0)
                await hearing.sync()
        finally:
            self._hearing, self._stood = None, dict.fromkeys(self._queues, 0)
            await hearing.close()

    async def _stand(self, claims: StandingClaims, boot: str, hearing: Hearing) -> None:
        """As there is room now; then wait for a change."""
        self._wanted.clear()
        for queue, jobs in self._changes().items():
            self._stood[queue] = jobs  # before the answer: what is handed over until then counts
            if not await claims.stand(queue, boot, jobs=jobs):
                self._stood[queue] = 0
                await self._stage.sleep(self._stage.backoff(1))  # its row is not there yet, or it is dead
        if not self._changes():
            try:
                async with asyncio.timeout(self._patience):
                    await self._wanted.wait()
            except TimeoutError:
                if self._rests_until:
                    return
                await hearing.sync()
                if (now := self._stage.clock.elapsed()) > self._stood_at + ANEW_SECONDS:
                    self._stood_at, self._stood = now, dict.fromkeys(self._queues, 0)

    @property
    def _patience(self) -> float:
        """Seconds without a change."""
        now = self._stage.clock.elapsed()
        self._rests_until = {queue: until for queue, until in self._rests_until.items() if until > now}
        return min((until - now for until in self._rests_until.values()), default=LISTEN_SECONDS)

    def _changes(self) -> dict[str, int]:
        """Queues, and for how many jobs to stand there from now on."""
        changes, now = {}, self._stage.clock.elapsed()
        for queue, stood in self._stood.items():
            room = self._room(queue)
            if room is None:
                continue
            most = min(room, MOST)
            if most <= 0:
                if stood > 0:
                    changes[queue] = 0
                    self._rests_until[queue] = now + REST_SECONDS
            elif 2 * stood < most and now >= self._rests_until.get(queue, 0.0):
                changes[queue] = most
        return changes

    def _told(self, boot: str, handed: Handed) -> None:
        self._stood[handed.queue] = max(0, self._stood[handed.queue] - 1)
        self._take(boot, handed)
