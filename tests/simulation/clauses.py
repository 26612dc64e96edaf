"""The protocol's protective clauses, each left out of a world: by a store, an actor or a connection that does without.

The code under test knows nothing of this. Where the reconciliation of lost tickets would make up for a clause, that is
out of the way too: it is one clause of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from msgspec import Struct, structs

from callboard.actors.repeatable_scheduler import RepeatableScheduler
from callboard.actors.stalled_recovery import StalledRecovery
from callboard.actors.worker import Worker
from callboard.brokers.contract import BODY_LIMIT, Consumer, Receive
from callboard.brokers.message import Delivery, Receipt
from callboard.metadata.contract import Jobs
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import NewJob, Outbox, State
from callboard.metadata.memory import MemoryStore
from callboard.metadata.memory.jobs import MemoryJobs
from callboard.metadata.memory.queue import QueueData
from callboard.metadata.memory.schedules import MemorySchedules
from callboard.metadata.memory.state import Queues
from callboard.metadata.schedule import Firing
from callboard.metadata.schedules import Fired
from callboard.runtime.actor import Stage
from callboard.runtime.claims import Claims
from callboard.runtime.forgotten import Forgotten
from callboard.runtime.observations import Observations
from callboard.runtime.runs import Runs
from callboard.runtime.testing.simulation import Faults, Violated
from callboard.runtime.testing.simulation.broker import SimulatedBroker
from callboard.runtime.testing.simulation.world import World
from simulation.scene import FAULT_SECONDS, Laws, Settings, run

LOST_TICKETS = Settings(reconcile=False)
FORGETFUL = Settings(forget=True)
FORGETS_SOON = Settings(forget=True, adoption_window=1.0)


class Altered(MemoryStore):
    """With a capability of another kind."""

    def __init__(self, **offers: Callable[[Queues], object]) -> None:
        super().__init__()
        jobs = self._offers[Jobs]
        assert isinstance(jobs, MemoryJobs)
        for capability in self._offers:
            if capability.__name__ in offers:
                self._offers[capability] = offers[capability.__name__](jobs._queues)


# --- the record and its ticket ---


class NoOutbox(MemoryJobs):
    """A job counts as sent when it is recorded."""

    async def enqueue(self, jobs: Sequence[NewJob], *, now: int, grace: int) -> Any:
        answers = await super().enqueue(jobs, now=now, grace=grace)
        for job in jobs:
            data = self._queues[job.queue]
            record = data.records.get(job.id)
            if record is not None and record.outbox is Outbox.DUE:
                data.sent_now(record, now)
        return answers


class Trusting(World):
    """What was published counts as confirmed."""

    def receipts(self, receipts: list[Receipt]) -> list[Receipt]:
        return [Receipt.CONFIRMED] * len(receipts)


class NoReconciliation(MemoryJobs):
    async def take_overtaken(self, *_: Any, **__: Any) -> Any:
        return []


class Settled:
    """A delivery that is acknowledged already."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)

    def ack(self) -> None: ...

    def requeue(self) -> None: ...

    def reject(self) -> None: ...


class AckingBroker(SimulatedBroker):
    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        def take(delivery: Delivery) -> None:
            delivery.ack()
            receive(Settled(delivery))  # type: ignore[arg-type]

        return await super().consume(queue, take, prefetch=prefetch, exclusive=exclusive, body_limit=body_limit)


class AckFirst(World):
    def connect_broker(self, process: Any) -> SimulatedBroker:
        return AckingBroker(self, process)


# --- who has the job ---


class ClaimsWhatIsTaken(MemoryJobs):
    def _claim(self, data: QueueData, owner: str, ticket: Any, now: int, *rest: Any) -> Any:
        record = data.records.get(ticket.id)
        if record is not None and record.state is State.ACTIVE and record.dispatch == ticket.dispatch:
            data.wait(record, dispatch=record.dispatch, due=now, now=now)
        return super()._claim(data, owner, ticket, now, *rest)


class ForgetfulRuns(Runs):
    def is_new(self, queue: str, job_id: str, dispatch: int) -> bool:
        return True


class ForgetfulWorker(Worker):
    """Keeps no table of the dispatches that it has started."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._runs.__class__ = ForgetfulRuns


class DeafClaims(Claims):
    async def _hear_out(self) -> None: ...


class DeafWorker(Worker):
    """Forgets what it has started though it may yet be told that this was handed over to it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._claims.__class__ = DeafClaims


class NeverLooking(Forgotten):
    async def look(self) -> None: ...


class NeverLookingWorker(Worker):
    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._forgotten.__class__ = NeverLooking


class FinishWithoutFence(MemoryJobs):
    def _finish(self, data: QueueData, outcome: Any, *rest: Any) -> Any:
        record = data.records.get(outcome.id)
        if record is not None and record.owner is not None:
            outcome = structs.replace(outcome, dispatch=record.dispatch, owner=record.owner)
        return super()._finish(data, outcome, *rest)


class OneLook(Observations):
    """Who has not moved between two looks is dead."""

    def read(self, rows: Sequence[Any], *, asked: float, answered: float) -> list[Any]:
        before = {key: seen.beat for key, seen in self._seen.items()}
        super().read(rows, asked=asked, answered=answered)
        return [row for row in rows if before.get((row.queue, row.boot)) == row.beat]


class HastyRecovery(StalledRecovery):
    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._observations = OneLook(stage.settings.lease_seconds)


# --- late copies ---


class NoTombstones(MemoryJobs):
    async def finish(self, queue: str, outcomes: Sequence[Any], *, now: int, grace: int) -> Any:
        answers = await super().finish(queue, outcomes, now=now, grace=grace)
        data = self._queues[queue]
        for id in list(data.tombstones):
            data.drop_tombstone(id)
        return answers


class AdoptsAnything(Claims):
    def _adoptable(self, pending: Any) -> bool:
        return True


class AdoptingWorker(Worker):
    """However old its ticket is."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._claims.__class__ = AdoptsAnything


# --- schedules ---


class FiresWithoutComparing(MemorySchedules):
    async def fire(self, queue: str, firings: Sequence[Firing], *, now: int, grace: int) -> Sequence[Fired]:
        schedules = self._queues[queue].schedules
        current = [
            structs.replace(one, due=schedules[one.id].next_run or one.due, revision=schedules[one.id].revision)
            for one in firings
        ]
        return await super().fire(queue, current, now=now, grace=grace)


class FiresInTwoSteps(MemorySchedules):
    """Jobs first, then the schedule, as where the two are kept apart; every other time it dies in between."""

    def __init__(self, queues: Queues) -> None:
        super().__init__(queues)
        self._jobs = MemoryJobs(queues)
        self._times = 0

    async def fire(self, queue: str, firings: Sequence[Firing], *, now: int, grace: int) -> Sequence[Fired]:
        for firing in firings:
            await self._jobs.enqueue(firing.jobs, now=now, grace=grace)
        self._times += 1
        if self._times % 2:
            raise StoreUnavailable("simulated://", "it died between two steps")
        return await super().fire(queue, firings, now=now, grace=grace)


class InventsIds(RepeatableScheduler):
    async def _attempts(self, queue: str, schedules: Sequence[Any], now: int) -> Any:
        return [
            structs.replace(attempt, firing=structs.replace(attempt.firing, jobs=self._renamed(attempt.firing.jobs)))
            for attempt in await super()._attempts(queue, schedules, now)
        ]

    def _renamed(self, jobs: Sequence[NewJob]) -> tuple[NewJob, ...]:
        return tuple(self._rename(job, f"{job.id}-{self.stage.random.getrandbits(64):x}") for job in jobs)

    def _rename(self, job: NewJob, id: str) -> NewJob:
        return structs.replace(job, id=id, payload=job.payload.replace(job.id.encode(), id.encode(), 1))


def _late_copies(random: Random) -> Faults:
    return structs.replace(
        Faults.drawn(random, seconds=FAULT_SECONDS), doubled_messages=0.5, late_messages=0.2, late_seconds=8.0
    )


def _purges(random: Random) -> Faults:
    return structs.replace(Faults.drawn(random, seconds=FAULT_SECONDS), purges=1.0)


def _slowness(random: Random) -> Faults:
    """Requests that arrive when the world is another one."""
    return structs.replace(
        Faults.drawn(random, seconds=2.5), slow=0.2, slow_seconds=2.0, pauses=0.4, crashes=0.3, lost_messages=0.2,
        purges=0.0,
    )  # fmt: skip


def _late_tidings(random: Random) -> Faults:
    """What is handed over is heard of late, and nothing else goes wrong."""
    return Faults(seconds=FAULT_SECONDS, slow=0.3, slow_seconds=1.0)


def _zombies(random: Random) -> Faults:
    """Processes that go on after others have given them up."""
    return structs.replace(
        Faults.drawn(random, seconds=2.5), pauses=0.8, pause_seconds=2.0, partitions=0.5, crashes=0.0, stops=0.0,
        crash_at_call=0.0, purges=0.0,
    )  # fmt: skip


def _lost_messages(random: Random) -> Faults:
    return structs.replace(Faults.drawn(random, seconds=FAULT_SECONDS), lost_messages=0.3, purges=0.0)


def _without_purges(random: Random) -> Faults:
    return structs.replace(Faults.drawn(random, seconds=FAULT_SECONDS), purges=0.0)


def _store(**offers: Callable[[Queues], object]) -> Callable[[], MemoryStore]:
    return lambda: Altered(**offers)


CLAUSES: dict[str, Laws] = {
    "a recorded job is in the outbox": Laws(store=_store(Jobs=NoOutbox), settings=LOST_TICKETS, faults=_without_purges),
    "only what was confirmed counts as sent": Laws(world=Trusting, settings=LOST_TICKETS, faults=_lost_messages),
    "a claim comes before its ack": Laws(world=AckFirst, settings=LOST_TICKETS, faults=_without_purges),
    "lost tickets are noticed": Laws(store=_store(Jobs=NoReconciliation), faults=_purges),
    "one claim for each dispatch": Laws(store=_store(Jobs=ClaimsWhatIsTaken)),
    "a worker knows what it has started": Laws(actors={"worker": ForgetfulWorker}),
    "what was handed over is heard out": Laws(actors={"worker": DeafWorker}, faults=_late_tidings),
    "a worker gives back what it does not run": Laws(actors={"worker": NeverLookingWorker}),
    "a finish is fenced": Laws(store=_store(Jobs=FinishWithoutFence), faults=_zombies),
    "a lease is watched for its time": Laws(actors={"stalled-recovery": HastyRecovery}),
    "what is forgotten leaves a tombstone": Laws(
        store=_store(Jobs=NoTombstones), settings=FORGETFUL, faults=_late_copies, linger=9.0
    ),
    "old tickets of unknown jobs are not adopted": Laws(
        actors={"worker": AdoptingWorker}, settings=FORGETS_SOON, faults=_late_copies, linger=9.0
    ),
    "an occurrence has one id": Laws(
        actors={"repeatable-scheduler": InventsIds}, store=_store(Schedules=FiresInTwoSteps)
    ),
    "a firing compares what it read": Laws(store=_store(Schedules=FiresWithoutComparing), faults=_slowness),
}


class Shown(Struct, frozen=True):
    """The first seed that showed what a clause prevents, by `python tests/simulation/main.py 0 --runs 400 --clauses`,
    and what it shows then. `by` finds it in the words of a violation: that something else fails proves nothing.
    DESIGN.md has the table."""

    seed: int
    what: str
    by: str = ""

    def is_said(self, violated: Violated) -> bool:
        return re.search(self.by or self.what, violated.wrongs[0]) is not None


_WAITS = {"what": "a job waits for ever", "by": "is waiting a(t dispatch|fter)"}
FOUND: dict[str, Shown] = {
    "a recorded job is in the outbox": Shown(1, **_WAITS),
    "only what was confirmed counts as sent": Shown(2, **_WAITS),
    "a claim comes before its ack": Shown(9, **_WAITS),
    "lost tickets are noticed": Shown(12, **_WAITS),
    "one claim for each dispatch": Shown(0, "claimed twice"),
    "a worker knows what it has started": Shown(0, "started twice"),
    "what was handed over is heard out": Shown(83, "started twice"),
    "a worker gives back what it does not run": Shown(13, "a job is active for ever", by="is active at dispatch"),
    "a finish is fenced": Shown(113, "two ends accepted", by="two ends of job"),
    "a lease is watched for its time": Shown(0, "declared dead"),
    "what is forgotten leaves a tombstone": Shown(3, "claimed twice"),
    "old tickets of unknown jobs are not adopted": Shown(0, "claimed twice"),
    "an occurrence has one id": Shown(0, "two jobs of one occurrence", by="occurrence .* has 2 jobs"),
    "a firing compares what it read": Shown(17, "fired again", by="which had been fired"),
}

# The same worlds with every clause in its place: what makes the clauses above matter is no violation by itself.
WITH_THEM: dict[str, Laws] = {
    "tickets that get lost": Laws(faults=_purges),
    "late copies of forgotten jobs": Laws(settings=FORGETFUL, faults=_late_copies, linger=9.0),
    "tombstones that are soon gone": Laws(settings=FORGETS_SOON, faults=_late_copies, linger=9.0),
    "what is heard of late": Laws(faults=_late_tidings),
    "processes that were given up": Laws(faults=_zombies),
    "requests that arrive late": Laws(faults=_slowness),
    "a store that fires in two steps": Laws(store=_store(Schedules=FiresInTwoSteps)),
    "no reconciliation": Laws(settings=LOST_TICKETS, faults=_without_purges),
}


def first_violation(laws: Laws, *, seeds: Iterable[int], shown: Shown | None = None) -> Violated | None:
    """`shown`: one of these alone."""
    for seed in seeds:
        try:
            run(seed, laws)
        except Violated as violated:
            if shown is None or shown.is_said(violated):
                return violated
    return None
