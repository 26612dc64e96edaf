"""Claims what has arrived, several calls at a time: the store decides over the next jobs while these run and those
before them are finished.

    backlog ──(room)──> claim, at most CALLS under way ──> run, or wait for a slot, for milliseconds
       ^                         ├──> settle: somebody else has it; put aside: nobody can use it
       └─────────────────────────┴──> look again: its record is still being written; adopted when that takes too long

The room is the free slots, and where jobs are short those that will be free by the time the answer is here. What is
claimed is this worker's until it ends or is handed back, so no more is claimed ahead than starts within `Pace.ahead`
at the present speed; what could not be started when others would have had it is handed back (see `Runs.hand_back`).

A job that was lost before may take this worker with it, and all that is this worker's is then counted as lost. So such
a job is claimed, and others beside it, only while what was claimed and not yet recorded as ended fits the slots: what
was claimed ahead without knowing of it is waited for. That costs a trip: who claims ahead is answered `alone`, and asks
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct, structs

from ..metadata.contract import Claimed, Jobs, Verdict
from ..metadata.contract import Ticket as ClaimTicket
from ..metadata.standing import Handed
from .actor import Stage
from .backlog import Backlog, Pending
from .pace import Pace
from .run import Interruption, Run
from .runs import Runs
from .spare import HAND_ON_SECONDS
from .standing import HANDED_DISPATCH, Standing
from .suspects import Suspects
from .unusable import Unusable
from .wire import Event, body_of, new_job, ticket_of

MOST_AHEAD = 2  # batches
FEW = 8  # of a queue that has nothing under way, beyond all room
LOOK_AGAIN_SECONDS = (0.0, 0.001, 0.002, 0.005)  # most records come right behind; the last one again and again
RECORDING_SECONDS = 1.0  # a ticket so young may have overtaken its record


class Call(Struct, frozen=True):
    """A claim under way. `careful`: it takes jobs that were lost before."""

    queue: str
    jobs: int
    careful: bool


class Host(Protocol):
    """The worker, as far as claiming goes."""

    @property
    def boot(self) -> str:
        """Under which it claims."""
        ...

    def lease_is_certain(self) -> bool: ...

    def lease_lost(self, boot: str) -> None:
        """A claim was refused: that boot has been declared dead."""
        ...

    def met_pause(self, queue: str) -> None: ...

    def copy_refused(self) -> None: ...


class Claims:
    """`changed` is set by whoever brings work or room; `missed` is called when a job may be ours that was not told;
    `spawn` runs what must not fail in silence."""

    def __init__(
        self,
        stage: Stage,
        host: Host,
        queues: Sequence[str],
        backlog: Backlog,
        runs: Runs,
        unusable: Unusable,
        *,
        pace: Pace,
        changed: asyncio.Event,
        missed: Callable[[], None],
        spawn: Callable[..., asyncio.Task[None]],
    ) -> None:
        self._stage = stage
        self._host = host
        self._jobs = stage.capability(Jobs)
        self._backlog = backlog
        self._runs = runs
        self._unusable = unusable
        self._missed = missed
        self._pace = pace
        self._changed = changed
        self._spawn = spawn
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._careful_calls = 0
        self._lost_before: dict[str, None] = {}  # queues of which the first that wait are known to be such jobs
        self._may_start = asyncio.Event()  # what is handed over
        self._claimed = 0  # jobs that are being asked for, wait for a slot or have one
        self._ahead = 0
        self._asked = self._replies = 0  # calls of the store
        self.standing = Standing(
            stage,
            queues=queues,
            boot=lambda: host.boot,
            room=self._room_to_stand,
            take=self._take_handed,
            missed=missed,
        )
        self.suspects = Suspects(
            stage,
            busy=self._is_busy,
            running=runs.in_words,
            changed=changed,
            claim=self._claim_alone,
            spawn=spawn,
        )

    @property
    def free(self) -> int:
        """Slots; below 0 where jobs were claimed ahead."""
        return self._stage.options.concurrency - self._claimed

    @property
    def all_answered(self) -> bool:
        """False: a call failed or was given up, and what it asked for may yet happen; a repeat that was answered does
        not make up for it."""
        return self._replies == self._asked

    def released(self) -> None:
        """One of `Runs` has left its slot."""
        self._claimed -= 1
        self._changed.set()

    def follow(self, rate: float) -> None:
        """`rate`: jobs that were started in HAND_ON_SECONDS."""
        # Who has one slot alone wants one job after the other: they also end one by one, in the store too.
        if self._stage.options.concurrency > 1:
            self._ahead = min(MOST_AHEAD * self._pace.batch, round(rate * self._pace.ahead / HAND_ON_SECONDS))

    def told_of_the_lease(self) -> None:
        """A heartbeat was answered, or the worker stops."""
        self._may_start.set()

    async def claim_while_there_is_work(self) -> None:
        """Until the stage is stopping; then until every call is answered."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                self.standing.review()
                if self.suspects.wait_is_over:
                    await self.suspects.run_each()
                if self._stage.stopping.is_set():
                    break
                self._claim_what_fits()
                self.standing.review()
            while self._calls:
                await asyncio.wait(set(self._calls))
        finally:
            for call in list(self._calls):
                call.cancel()

    def _claim_what_fits(self) -> None:
        while self._host.lease_is_certain() and self._runs.has_room and not self.suspects:
            again = next(iter(self._lost_before), None) if self._lost_before else None
            turn = again or self._backlog.turn
            if turn is None:
                return
            careful = self._is_careful()
            room = self._room_in_slots() if careful else self._room_for(turn)
            if room <= 0:
                return
            limit = min(room, self._pace.batch)
            if again is None:
                queue, pending = self._backlog.take(limit)
            else:
                del self._lost_before[again]
                queue, pending = again, self._backlog.take_again(again, limit)
            if not pending:
                continue  # what was there is on its way to somebody again
            self._claimed += len(pending)
            alone_from = self.suspects.alone_from if careful else 1
            call = self._spawn(self._claim(queue, pending, alone_from=alone_from))
            self._calls[call] = Call(queue, len(pending), careful)
            self._careful_calls += careful
            call.add_done_callback(self._answered)

    def _is_careful(self) -> bool:
        """Whether a job that was lost before is here, or wanted, or asked for. With `max_stalled` 0 any may be failed
        by the next loss."""
        return (
            self._runs.lost_before > 0
            or bool(self._lost_before)
            or self._stage.settings.max_stalled == 0
            or self._careful_calls > 0
        )

    def _room_in_slots(self) -> int:
        if len(self._calls) >= self._pace.calls:
            return 0
        ours = len(self._runs) + sum(call.jobs for call in self._calls.values())
        return self._stage.options.concurrency - max(self._claimed, ours)

    def _room_for(self, queue: str) -> int:
        room, under_way = self.free + self._ahead, any(call.queue == queue for call in self._calls.values())
        if under_way and min(room, self._backlog.waiting(queue)) < self._pace.least:
            return 0
        if room > 0 and len(self._calls) < self._pace.calls:
            return room
        # Jobs are short, and the others have taken what there is: this one shall not wait until they have some less.
        alone = not under_way and not self._runs.waits(queue)
        return FEW if self._ahead > 0 and alone and len(self._calls) < 2 * self._pace.calls else 0

    def _answered(self, call: asyncio.Task[None]) -> None:
        self._careful_calls -= self._calls.pop(call).careful
        self._changed.set()

    def _room_to_stand(self, queue: str) -> int | None:
        """Slots for jobs that are handed over: none where one that was lost before is here, or comes. While others have
        taken them, and jobs are short, a few for a queue that has nothing here. None: as many as it stands for already,
        since there is room in a moment."""
        if self._stage.stopping.is_set() or self.suspects or not self._host.lease_is_certain() or self._is_careful():
            return 0
        if not self._runs.has_room:
            return None
        if (free := self.free) > 0 or self._ahead == 0:
            return free
        if not self._backlog.lets_pass(queue):
            return 0
        busy = self._backlog.waiting(queue) or self._runs.waits(queue)
        return None if busy or any(call.queue == queue for call in self._calls.values()) else FEW

    def _take_handed(self, boot: str, handed: Handed) -> None:
        """What a standing claim has got: a run, as by a claim that was answered."""
        queue = handed.queue
        if boot != self._host.boot:
            return  # it is recovered, with all that boot held
        if not self._host.lease_is_certain() and not self._stage.stopping.is_set():
            if self._runs.knows(queue, handed.id, HANDED_DISPATCH):
                return  # by its ticket; that may be forgotten once it is not told any more
            self._may_start.clear()
            self._spawn(self._take_later(boot, handed))
            return
        ticket = ticket_of(handed.payload, HANDED_DISPATCH)
        if ticket is None or (ticket.id, ticket.queue) != (handed.id, queue):
            self._missed()  # given back, it comes by its ticket, which is put aside
            return
        if not self._runs.is_new(queue, ticket.id, ticket.dispatch):
            return
        self.standing.remember(ticket)
        self._claimed += 1
        claimed = Claimed(handed.id, Verdict.CLAIMED, handed.fence, attempt=1)
        run = Run(queue=queue, ticket=ticket, claimed=claimed, boot=boot, started_at=self._stage.clock.now())
        run.sent_at = ticket.created_at
        self._runs.start(run)
        if self._stage.stopping.is_set():
            self._runs.give_back(run, Interruption.STOPPING)
        elif self.suspects or self._runs.lost_before > 0 or (self._is_careful() and self.free < 0):
            self._runs.give_back(run, Interruption.WAITED)
        else:
            self._runs.begin()

    async def _take_later(self, boot: str, handed: Handed) -> None:
        """This process may have stood still for its lease since, and others have the job: the next heartbeat tells."""
        with self._runs.claiming():  # until then it is one without an answer
            await self._may_start.wait()
            self._take_handed(boot, handed)

    async def _hear_out(self) -> None:
        """While what a claim was answered to be ours may yet be told as handed over: until then it is remembered."""
        with self._runs.claiming():
            await self.standing.heard()

    async def _claim_alone(self, queue: str, pending: Pending) -> None:
        self._claimed += 1
        await self._claim(queue, [pending], alone_from=None)

    def _is_busy(self) -> bool:
        return bool(self._runs) or self._claimed > 0 or not self._host.lease_is_certain()

    async def _claim(self, queue: str, pending: list[Pending], *, alone_from: int | None) -> None:
        boot, loop = self._host.boot, asyncio.get_running_loop()
        with self._runs.claiming():
            tickets = [ClaimTicket(p.ticket.id, p.ticket.dispatch, created_at=p.ticket.created_at) for p in pending]
            answers = await self._ask(queue, boot, tickets, alone_from)
            unknown = [i for i, answer in enumerate(answers) if answer.verdict is Verdict.UNKNOWN]
            if not all(self._adoptable(pending[i]) for i in unknown):  # unless the store has lost its data meanwhile
                await self._stage.patiently(self._stage.connections.store.read_epoch)
                unknown = [i for i in unknown if self._adoptable(pending[i])]
            early = {i for i in unknown if self._may_yet_be_recorded(pending[i])}
            unknown = [i for i in unknown if i not in early]
            if unknown:
                adopted = [structs.replace(tickets[i], adopt=new_job(body_of(pending[i].ticket))) for i in unknown]
                for i, answer in zip(unknown, await self._ask(queue, boot, adopted, alone_from), strict=True):
                    answers[i] = answer
            # Some alone, where the death was declared between the two calls, or the statements of one; none, where a
            # beat told of it before the answer was here: nobody would interrupt what starts now.
            if boot != self._host.boot or any(answer.verdict is Verdict.DEAD for answer in answers):
                self._claimed -= len(pending)
                self._backlog.put_back(queue, pending)
                self._host.lease_lost(boot)
                return
            now = self._stage.clock.now()
            settled: list[Pending] = []
            lost_before: list[Pending] = []
            for position, (one, answer) in enumerate(zip(pending, answers, strict=True)):
                if answer.verdict is Verdict.CLAIMED or answer.verdict is Verdict.MINE:
                    ticket = one.ticket
                    if self._runs.is_new(queue, ticket.id, ticket.dispatch):
                        if answer.verdict is Verdict.MINE and self.standing.hears:
                            self._spawn(self._hear_out())
                        run = Run(queue=queue, ticket=ticket, claimed=answer, boot=boot, started_at=now)
                        run.adopted = position in unknown
                        run.sent_at = one.parcel.at
                        self._runs.start(run)
                    else:
                        self._host.copy_refused()
                        self._claimed -= 1
                    settled.append(one)
                else:
                    self._claimed -= 1
                    if answer.verdict is Verdict.ALONE and alone_from != self.suspects.alone_from:
                        lost_before.append(one)
                    elif position in early:
                        loop.call_later(LOOK_AGAIN_SECONDS[one.looks], self._look_again, queue, one)
                    else:
                        self._refused(queue, one, answer.verdict)
            if lost_before:
                self._backlog.put_back(queue, lost_before)
                self._lost_before[queue] = None
            self._runs.begin()
            for one in settled:  # behind the start of the runs: they need not wait for acks to be written
                one.parcel.settle()

    async def _ask(
        self, queue: str, boot: str, tickets: Sequence[ClaimTicket], alone_from: int | None
    ) -> list[Claimed]:
        """Until there is an answer: a claim whose reply was lost may have succeeded, and only this boot can tell."""
        return await self._stage.patiently(lambda: self._ask_once(queue, boot, tickets, alone_from))

    async def _ask_once(
        self, queue: str, boot: str, tickets: Sequence[ClaimTicket], alone_from: int | None
    ) -> list[Claimed]:
        keep, now = self._stage.app.retention(queue)[1].keep(), self._stage.clock.now()
        self._asked += 1
        answers = await self._jobs.claim(queue, boot, tickets, now=now, keep_expired=keep, alone_from=alone_from)
        self._replies += 1
        return list(answers)

    def _refused(self, queue: str, pending: Pending, verdict: Verdict) -> None:
        ticket, now = pending.ticket, self._stage.clock.now()
        match verdict:
            case Verdict.ALONE:
                self.suspects.add(queue, pending)
                return
            case Verdict.UNKNOWN | Verdict.AHEAD:
                self._unusable.refused(queue, pending, verdict)
                return
            case Verdict.PAUSED:
                self._host.met_pause(queue)
            case Verdict.EXPIRED:
                name, task = ticket.id, ticket.task
                expired = Event(event="expired", job=name, queue=queue, task=task, at=now, dispatch=ticket.dispatch)
                self._stage.dispatcher.emit(expired)
            case Verdict.TAKEN | Verdict.STALE | Verdict.FINAL | Verdict.GONE | Verdict.NOT_DUE:
                if not pending.parcel.spare:
                    self._host.copy_refused()
        pending.parcel.settle()

    def _adoptable(self, pending: Pending) -> bool:
        """A ticket of an unknown id: fresh, or of a store that has lost its data since. Else it is a late copy. What we
        cannot read we cannot record."""
        if pending.ticket.later:
            return False
        window = self._stage.settings.adoption_window_seconds * 1000
        return self._age(pending) < window or pending.parcel.epoch != self._stage.connections.store.epoch

    def _may_yet_be_recorded(self, pending: Pending) -> bool:
        """Its producer writes the record while it sends the ticket (see producer.py). By our own clock too: theirs may
        be wrong."""
        return (
            self._age(pending) < RECORDING_SECONDS * 1000
            and self._stage.clock.elapsed() - pending.parcel.arrived < RECORDING_SECONDS
            and pending.parcel.epoch == self._stage.connections.store.epoch
        )

    def _age(self, pending: Pending) -> int:
        return self._stage.clock.now() - pending.parcel.at

    def _look_again(self, queue: str, pending: Pending) -> None:
        pending.looks = min(pending.looks + 1, len(LOOK_AGAIN_SECONDS) - 1)
        self._backlog.put_back(queue, [pending])
        self._changed.set()
