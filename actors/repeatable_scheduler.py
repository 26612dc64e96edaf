"""RepeatableScheduler: makes one job of each occurrence of each schedule, with any number of replicas and no leader.

    sleep until the next run (at most IDLE_SECONDS), or until a command says that something has changed
    -> due: schedules whose next run has come, by the earlier of the store's clock and ours
    -> decide: which occurrences run, and which are missed, skipped or coalesced (runtime/firing.py)
    -> fire: only if nobody else has: the jobs, under the ids of their occurrences, and the next run, in one step
    -> publish -> published; cancel what the new run replaces; tell

Between `due` and `fire` nothing is held, so replicas race, and `fire` lets one win each run; `Turns` keeps those
that lost from racing the next time.

    a crash, or a lost reply, between      leaves                                  mended by
    due .. fire                            nothing                                 any scheduler: it is still due
    fire .. its reply                      jobs in the outbox, schedule moved      the relay sends them after its grace
    fire .. publish                        the same                                the same
    publish .. published                   a ticket, and the outbox                a copy, which the fence refuses
    fire .. cancel of the replaced run     two runs where `max_instances` is 1     the next occurrence: it counts both
    due .. fire, stopped past any time     nothing: the run that it names is over  `fire` answers MOVED
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from ..metadata.contract import MAX_BATCH, Admission, Inspection, Jobs, QueueControl, Ready
from ..metadata.job import NewJob, State
from ..metadata.schedule import Firing, Schedule
from ..metadata.schedules import Fire, Fired, Schedules
from ..runtime.actor import Consumes, Stage
from ..runtime.firing import Decision, decide, wants_ends
from ..runtime.known_queues import KnownQueues
from ..runtime.outgoing import Outgoing
from ..runtime.rounds import RoundsActor
from ..runtime.schedule_record import (
    ReadSchedule,
    ScheduleUnreadable,
    encode_state,
    occurrence_id,
    occurrence_job,
    read_schedule,
)
from ..runtime.triggers import Fate
from ..runtime.turns import Turns
from ..runtime.wire import Command, Event

IDLE_SECONDS = 12.0  # changes wake us; this is for a change whose command was lost
QUEUES_SECONDS = 2 * IDLE_SECONDS - 1  # every other idle round looks for queues in place of schedules
UNREADABLE_MS = 60_000
MAX_CLOCK_GAP_MS = 2000
MOST_LATE_SECONDS = 0.1  # of a replica that is never first: a thousand firings take about as long

_EVENTS = {Fate.RAN: "occurred", Fate.COALESCED: "coalesced", Fate.MISSED: "missed", Fate.SKIPPED: "skipped"}


class Attempt(Struct, frozen=True):
    """A firing, and what it is made of; no decision where the schedule could not be read."""

    firing: Firing
    read: ReadSchedule | None = None
    decision: Decision | None = None


class RepeatableScheduler(RoundsActor):
    kind = "repeatable-scheduler"
    consumes = (Consumes("control.<instance>", "control", ("all", "<kind>", "<kind>.#")),)
    publishes = ("jobs", "events", "control", "dead")
    requires = (Schedules, Jobs, Inspection, QueueControl)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.queues = KnownQueues(stage, read_again_seconds=QUEUES_SECONDS)
        self._schedules = stage.capability(Schedules)
        self._jobs = stage.capability(Jobs)
        self._inspection = stage.capability(Inspection)
        self._names: tuple[str, ...] = ()
        self._idle = False
        self._due_at: float | None = None  # of the next run that is known of, by the clock's `elapsed`
        self._commanded = False
        self._gap_told = False
        self._turns = Turns(stage.random, most=MOST_LATE_SECONDS)
        self._outgoing = Outgoing(stage)
        self._fired = 0  # in this round

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self._outgoing.end()

    def receive(self, command: Command) -> None:
        self._commanded = True
        super().receive(command)

    def hears_again(self) -> None:
        self._commanded = True
        super().hears_again()

    async def round(self) -> float:
        idle, self._idle, self._commanded = self._idle and not self._commanded, False, False
        stale, before = self.queues.stale, self._names
        self._names = await self.queues.names()
        if idle and stale and self._names == before:  # one trip an idle round: the next one looks at the schedules
            return self._pause()
        now, asked = self.stage.clock.now(), self.stage.clock.elapsed()
        due = await self._schedules.due(self._names, now=now, limit=MAX_BATCH)
        self._tell_gap(due.gap)
        behind = max(
            0, -due.gap
        )  # the later of the two clocks has to reach a run: that of the store may be behind ours
        next_runs = [] if due.next_due is None else [due.next_due]
        self._fired = 0
        for queue in dict.fromkeys(schedule.queue for schedule in due.schedules):
            ours = [schedule for schedule in due.schedules if schedule.queue == queue]
            # By the time that has passed since the store was asked: a clock that has jumped meanwhile decides nothing.
            passed = int((self.stage.clock.elapsed() - asked) * 1000)
            next_runs += await self._fire(queue, ours, now - behind + passed)
        if self._fired:
            self._turns.got_some()
        elif due.schedules:
            self._turns.came_late()
        self._due_at = None
        if next_runs:
            # Where others are at what is due now, it is theirs for a while, too.
            left = max(0.0, (min(next_runs) - self.stage.clock.now() + behind) / 1000) + self._turns.wait
            self._due_at = self.stage.clock.elapsed() + left
        return self._pause(shortest=0.0 if due.schedules else 0.001)

    def _pause(self, *, shortest: float = 0.001) -> float:
        """Seconds until the next look."""
        left = IDLE_SECONDS if self._due_at is None else self._due_at - self.stage.clock.elapsed()
        self._idle = left >= IDLE_SECONDS
        return min(IDLE_SECONDS, max(left, shortest))

    async def _fire(self, queue: str, schedules: Sequence[Schedule], now: int) -> list[int]:
        """Fire what is due in a queue; when each of these schedules is to be looked at next."""
        attempts = await self._attempts(queue, schedules, now)
        for batch in _batches(attempts):
            answers = await self._schedules.fire(
                queue, [attempt.firing for attempt in batch], now=now, grace=self.stage.settings.grace
            )
            ready = [
                one for attempt, answer in zip(batch, answers, strict=True) for one in self._ready(attempt, answer)
            ]
            await self._outgoing.send(ready)
            self._fired += sum(answer.fire is Fire.FIRED for answer in answers)
            for attempt, answer in zip(batch, answers, strict=True):
                if answer.fire is Fire.FIRED and attempt.read is not None and attempt.decision is not None:
                    if self.stage.metrics is not None:
                        self.stage.metrics.fired(late=(self.stage.clock.now() - attempt.firing.due) / 1000)
                    await self._cancel(attempt.read, attempt.decision, now)
                    self._tell(attempt.read, attempt.decision, now)
        return [attempt.firing.next_run for attempt in attempts if attempt.firing.next_run is not None]

    async def _attempts(self, queue: str, schedules: Sequence[Schedule], now: int) -> list[Attempt]:
        reads: list[ReadSchedule] = []
        attempts: list[Attempt] = []
        for schedule in schedules:
            try:
                reads.append(read_schedule(schedule))
            except ScheduleUnreadable as error:
                self.stage.log.warning("%s; put off for %d s", error, UNREADABLE_MS // 1000)
                attempts.append(Attempt(self._firing(schedule, now + UNREADABLE_MS, schedule.state, ())))
        ended = await self._ended(queue, reads)
        for read in reads:
            decision = decide(read, now=now, ended=ended.get(read.record.id, frozenset()))
            jobs = tuple(occurrence_job(read, occurrence, now=now) for occurrence in decision.runs)
            state = encode_state(decision.state)
            attempts.append(Attempt(self._firing(read.record, decision.next_run, state, jobs), read, decision))
        return attempts

    def _firing(self, schedule: Schedule, next_run: int | None, state: bytes, jobs: tuple[NewJob, ...]) -> Firing:
        assert schedule.next_run is not None  # it is due
        return Firing(
            id=schedule.id,
            due=schedule.next_run,
            revision=schedule.revision,
            next_run=next_run,
            state=state,
            by=self.stage.instance,
            jobs=jobs,
        )

    async def _ended(self, queue: str, reads: Sequence[ReadSchedule]) -> dict[str, set[int]]:
        """Occurrences whose jobs have ended or are gone, by schedule, of those that limit their instances."""
        wanted = [(read.record.id, occurrence) for read in reads for occurrence in wants_ends(read)]
        ended: dict[str, set[int]] = {}
        for start in range(0, len(wanted), MAX_BATCH):
            some = wanted[start : start + MAX_BATCH]
            found = await self._inspection.get(queue, [occurrence_id(id, occurrence) for id, occurrence in some])
            for (id, occurrence), job in zip(some, found, strict=True):
                if job is None or job.state.final:
                    ended.setdefault(id, set()).add(occurrence)
        return ended

    def _ready(self, attempt: Attempt, answer: Fired) -> Iterator[Ready]:
        for job, enqueued in zip(attempt.firing.jobs, answer.enqueued, strict=False):  # none where it was not fired
            if enqueued.admission is Admission.EXISTING:
                self.stage.log.warning(
                    "an occurrence made no job: its id %s is taken by another one; a schedule that was removed and "
                    "made again does not repeat what has run: give it another moment or another id",
                    job.id,
                )
            elif enqueued.state is State.WAITING:
                yield Ready(job.queue, enqueued.id, enqueued.dispatch, job.priority, job.payload)

    async def _cancel(self, read: ReadSchedule, decision: Decision, now: int) -> None:
        if not decision.cancels:
            return
        queue = read.record.queue
        ids = [occurrence_id(read.record.id, occurrence) for occurrence in decision.cancels]
        keep = self.stage.app.retention(queue)[1].keep()
        for answer in await self._jobs.cancel(queue, ids, now=now, keep=keep):
            if answer.owner is not None:
                command = Command(command="cancel", queue=queue, jobs=(answer.id,))
                self.stage.dispatcher.command_soon(f"instance.{answer.owner}", command)

    def _tell(self, read: ReadSchedule, decision: Decision, now: int) -> None:
        for happening in decision.happenings:
            self.stage.dispatcher.emit(
                Event(
                    event=_EVENTS[happening.fate],
                    job=occurrence_id(read.record.id, happening.occurrence),
                    queue=read.record.queue,
                    task=read.definition.task,
                    at=now,
                    run_at=happening.occurrence,
                )
            )

    def _tell_gap(self, gap: int) -> None:
        apart = abs(gap) > MAX_CLOCK_GAP_MS
        if apart and not self._gap_told:
            self.stage.log.warning(
                "the store's clock and this machine's are %.1f s apart; schedules follow the later one", gap / 1000
            )
        self._gap_told = apart


def _batches(attempts: Sequence[Attempt]) -> Iterator[list[Attempt]]:
    """Of at most MAX_BATCH firings and as many jobs; a firing has fewer jobs than that."""
    batch: list[Attempt] = []
    jobs = 0
    for attempt in attempts:
        if batch and (len(batch) == MAX_BATCH or jobs + len(attempt.firing.jobs) > MAX_BATCH):
            yield batch
            batch, jobs = [], 0
        batch.append(attempt)
        jobs += len(attempt.firing.jobs)
    if batch:
        yield batch
