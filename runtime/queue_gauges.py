"""How much is kept in each queue, how old the oldest is, and what is in the outbox: asked of the store when somebody
wants to know.

One process asks for all of them: the one that runs stalled-recovery, which looks after every queue and its outbox
anyway. An answer serves everybody for a second, and for twenty times as long as the store took for it, so that
whoever asks, and however often, the store spends at most a twentieth of its time on it. At most MOST_QUEUES queues
are looked at, those of the app's tasks first.
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
REST = 20.0  # times as long as an answer took, until the store is asked again
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
ASKED = (JOBS, OLDEST, OVERDUE, OUTBOX, PAUSED, QUEUES)

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
        self._looking = asyncio.Lock()
        self._readings: Sequence[Reading] = ()
        self._fresh_until = float("-inf")

    def ask(self) -> Sequence[Reading]:
        """From another thread than the loop's. Nothing where the store is away, or the loop does not run."""
        asked = asyncio.run_coroutine_threadsafe(self.read(), self._loop)
        try:
            return asked.result(PATIENCE_SECONDS)
        except (TimeoutError, CancelledError, MetadataError):
            asked.cancel()
            return ()

    async def read(self) -> Sequence[Reading]:
        """Raises StoreUnavailable."""
        async with self._looking:
            began = self._clock.elapsed()
            if began >= self._fresh_until:
                self._readings = await self._look()
                ended = self._clock.elapsed()
                self._fresh_until = ended + max(FRESH_SECONDS, REST * (ended - began))
            return self._readings

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
