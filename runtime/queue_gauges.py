"""How much is kept in each queue, how old the oldest is, and what is in the outbox: asked of the store when somebody
wants to know.

One process asks for all of them: the one that runs stalled-recovery, which looks after every queue and its outbox
anyway. One look at a time, of at most MOST_QUEUES queues, those of the app's tasks first. It serves everybody for a
second, and for twenty times as long as it took, a minute at most: so whoever asks, and however often, the store spends
a twentieth of its time on it. Who asks while a long look is under way gets what the one before has seen, and its age.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError

from ..metadata.contract import Counts, Inspection, QueueControl, Store
from ..metadata.errors import MetadataError
from ..metadata.job import State
from .clock import Clock
from .job_view import could_run_since
from .metrics import MOST_SERIES, Instrument, Kind, Reading, Value

MOST_QUEUES = MOST_SERIES
FRESH_SECONDS = 1.0
REST = 20.0  # times as long as a look took, until the next one
MOST_REST_SECONDS = 60.0
TOGETHER = 32  # queues whose oldest job is read at a time; a record may hold a megabyte
PATIENCE_SECONDS = 3.0  # of a thread that asks the loop

JOBS = Instrument(
    name="callboard_jobs",
    semantic="callboard.jobs",
    kind=Kind.GAUGE,
    unit="{job}",
    labels=("queue", "state"),
    help="Jobs that are kept: waiting (the depth of the queue), delayed, active, failed.",
)
OLDEST = Instrument(
    name="callboard_oldest_waiting_seconds",
    semantic="callboard.oldest_waiting",
    kind=Kind.GAUGE,
    unit="s",
    labels=("queue",),
    help="Since when the job that has waited longest could run: 0 where none waits.",
)
OVERDUE = Instrument(
    name="callboard_overdue_seconds",
    semantic="callboard.overdue",
    kind=Kind.GAUGE,
    unit="s",
    labels=("queue",),
    help="How long ago the earliest delayed job was due: grows while no scanner takes it.",
)
OUTBOX = Instrument(
    name="callboard_outbox_jobs",
    semantic="callboard.outbox",
    kind=Kind.GAUGE,
    unit="{job}",
    labels=("queue",),
    help="Waiting jobs that are not known to be sent; those held by a pause are not counted.",
)
PAUSED = Instrument(
    name="callboard_queue_paused",
    semantic="callboard.queue.paused",
    kind=Kind.GAUGE,
    labels=("queue",),
    help="1 where the queue is paused.",
)
QUEUES = Instrument(
    name="callboard_queues",
    semantic="callboard.queues",
    kind=Kind.GAUGE,
    unit="{queue}",
    help=f"Queues that the store knows; of more than {MOST_QUEUES} the others have no gauges.",
)
AGE = Instrument(
    name="callboard_queues_age_seconds",
    semantic="callboard.queues.age",
    kind=Kind.GAUGE,
    unit="s",
    help="How long ago the look at the queues ended that these gauges tell of.",
)
ASKED = (JOBS, OLDEST, OVERDUE, OUTBOX, PAUSED, QUEUES, AGE)

_STATES = (State.WAITING, State.DELAYED, State.ACTIVE, State.FAILED)


class QueueGauges:
    """`queues`: those to look at; none: all that the store knows, those that are `preferred` first. Belongs to the loop
    in which it is made."""

    def __init__(
        self, store: Store, clock: Clock, *, queues: Sequence[str] = (), preferred: Callable[[str], bool]
    ) -> None:
        self._inspection = store.get(Inspection)
        self._control = store.get(QueueControl)
        self._clock = clock
        self._queues = tuple(queues)
        self._preferred = preferred
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.Task[None] | None = None
        self._readings: Sequence[Reading] = ()
        self._read_at = 0.0
        self._fresh_until = float("-inf")

    def ask(self) -> Sequence[Reading]:
        """From another thread than the loop's, within PATIENCE_SECONDS. Nothing where the store is away, or nothing was
        read yet."""
        asked = asyncio.run_coroutine_threadsafe(self.read(), self._loop)
        try:
            return asked.result(PATIENCE_SECONDS)
        except TimeoutError:
            asked.cancel()  # only the waiting for the look
            return self._told()
        except CancelledError:  # the process ends
            return ()

    async def read(self) -> Sequence[Reading]:
        """What is fresh enough, or the result of a look; nothing where the store is away."""
        if self._clock.elapsed() >= self._fresh_until:
            if self._looking is None or self._looking.done():
                self._looking = self._loop.create_task(self._look_once())
            await asyncio.shield(self._looking)
        return self._told()

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def _told(self) -> Sequence[Reading]:
        readings = self._readings
        return (*readings, Reading(AGE, [Value((), self._clock.elapsed() - self._read_at)])) if readings else ()

    async def _look_once(self) -> None:
        began = self._clock.elapsed()
        try:
            readings = await self._look()
        except MetadataError:  # what was seen before is not told for what is
            readings = ()
        ended = self._clock.elapsed()
        self._readings, self._read_at = readings, ended
        self._fresh_until = ended + min(MOST_REST_SECONDS, max(FRESH_SECONDS, REST * (ended - began)))

    async def _look(self) -> Sequence[Reading]:
        known = self._queues or await self._control.queues()
        names = sorted(known, key=lambda name: (not self._preferred(name), name))[:MOST_QUEUES]
        counts: dict[str, Counts] = {}
        ages: dict[State, dict[str, float]] = {State.WAITING: {}, State.DELAYED: {}}
        for start in range(0, len(names), TOGETHER):
            some = names[start : start + TOGETHER]
            counts |= await self._inspection.counts(some)
            for state, age in ages.items():
                holding = [name for name in some if _count(counts[name], state)]
                age |= zip(holding, await asyncio.gather(*(self._age(name, state) for name in holding)), strict=True)
        return _readings(names, counts, ages, known=len(known))

    async def _age(self, queue: str, state: State) -> float:
        """Seconds for which the first job of that state could have left it."""
        now = self._clock.now()
        page = await self._inspection.page(queue, state, offset=0, limit=1, newest_first=False)
        return max(0.0, (now - could_run_since(page[0])) / 1000) if page else 0.0


def _count(counts: Counts, state: State) -> int:
    return int(getattr(counts, state.value))


def _readings(
    names: Sequence[str], counts: Mapping[str, Counts], ages: Mapping[State, Mapping[str, float]], *, known: int
) -> Sequence[Reading]:
    waiting, delayed = ages[State.WAITING], ages[State.DELAYED]
    jobs = [Value((name, state.value), _count(counts[name], state)) for name in names for state in _STATES]
    return (
        Reading(JOBS, jobs),
        Reading(OLDEST, [Value((name,), waiting.get(name, 0.0)) for name in names]),
        Reading(OVERDUE, [Value((name,), delayed.get(name, 0.0)) for name in names]),
        Reading(OUTBOX, [Value((name,), counts[name].unpublished - counts[name].held) for name in names]),
        Reading(PAUSED, [Value((name,), int(counts[name].paused)) for name in names]),
        Reading(QUEUES, [Value((), known)]),
    )
