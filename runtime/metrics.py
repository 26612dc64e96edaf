"""What a process counts for its operators, where the setting `metrics` asks for it.

    hooks in actors and their parts ──> Metrics ──┐
    store, when somebody asks ────> QueueGauges ──┼── Readings ──┬──> GET /metrics   (prometheus.py)
    health, restarts ─────────────────────────────┘              └──> OTLP           (otlp_metrics.py)

Plain numbers of this process: they begin with 0, the event loop's thread alone writes them, and any thread reads them.
Labels are names of queues and of tasks, and nothing else of a job. A task that the app does not know counts as `other`,
and so does what comes after the first MOST_SERIES of an instrument: whoever makes jobs cannot make memory grow.

Moments are told by the clocks of different machines: a negative duration counts as 0. Off, there is no `Metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

from msgspec import Struct

from ..metadata.contract import Ending, Outcome
from .clock import Clock
from .run import Run

MOST_SERIES = 1000
OTHER = "other"
FOREIGN = ("queue", "task")  # labels whose values are not ours

# Those of OpenTelemetry's conventions for messaging, and some for jobs that take longer than messages.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0, 1800.0)
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Instrument(Struct, frozen=True, kw_only=True):
    """`name`: Prometheus's; `semantic`: OpenTelemetry's, whose conventions have names for some. `unit`: of UCUM."""

    name: str
    semantic: str
    kind: Kind
    help: str
    unit: str = "1"
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


class Value(Struct, frozen=True):
    labels: tuple[str, ...]
    value: float


class Distribution(Struct, frozen=True):
    """`counts`: of values up to each bound of the instrument, and one more beyond the last; not cumulative."""

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    sum: float


class Reading(Struct, frozen=True):
    instrument: Instrument
    points: Sequence[Value | Distribution]


RUN_SECONDS = Instrument(
    name="callboard_run_seconds",
    semantic="messaging.process.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("queue", "task"),
    bounds=DURATIONS,
    help="How long runs took, from their start in a worker to the end of the task.",
)
WAIT_SECONDS = Instrument(
    name="callboard_wait_seconds",
    semantic="callboard.job.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("queue", "task"),
    bounds=DURATIONS,
    help="How long jobs waited, from the sending of their ticket to their start in a worker.",
)
RUNS = Instrument(
    name="callboard_runs_total",
    semantic="callboard.runs",
    kind=Kind.COUNTER,
    unit="{run}",
    labels=("queue", "task", "outcome"),
    help="Runs that ended here: completed, failed, cancelled, retried, released, parked.",
)
LATE_FINISHES = Instrument(
    name="callboard_late_finishes_total",
    semantic="callboard.late_finishes",
    kind=Kind.COUNTER,
    unit="{run}",
    labels=("queue",),
    help="Ends of runs that were refused, since their worker had lost its lease.",
)
STALLED = Instrument(
    name="callboard_stalled_jobs_total",
    semantic="callboard.stalled_jobs",
    kind=Kind.COUNTER,
    unit="{job}",
    labels=("queue", "became"),
    help="Jobs taken back from workers that were gone: run again, or failed for good.",
)
RESENT = Instrument(
    name="callboard_tickets_resent_total",
    semantic="callboard.tickets_resent",
    kind=Kind.COUNTER,
    unit="{ticket}",
    labels=("why",),
    help="Tickets sent by recovery: unsent in the outbox past their grace, or lost by the broker.",
)
SCANNER_LAG = Instrument(
    name="callboard_scanner_lag_seconds",
    semantic="callboard.scanner.lag",
    kind=Kind.HISTOGRAM,
    unit="s",
    bounds=LAGS,
    help="How late the delayed scanner was for the earliest of the jobs that it took at a time.",
)
SCHEDULER_LAG = Instrument(
    name="callboard_scheduler_lag_seconds",
    semantic="callboard.scheduler.lag",
    kind=Kind.HISTOGRAM,
    unit="s",
    bounds=LAGS,
    help="How late schedules were fired by the repeatable scheduler.",
)
LOOP_LAG = Instrument(
    name="callboard_loop_lag_seconds",
    semantic="callboard.loop.lag",
    kind=Kind.HISTOGRAM,
    unit="s",
    bounds=LAGS,
    help="How late the event loop got to what was to be done at once, four times a second.",
)
COUNTED = (RUN_SECONDS, WAIT_SECONDS, RUNS, LATE_FINISHES, STALLED, RESENT, SCANNER_LAG, SCHEDULER_LAG, LOOP_LAG)

_OUTCOMES = {
    Ending.COMPLETED: "completed",
    Ending.FAILED: "failed",
    Ending.CANCELLED: "cancelled",
    Ending.RETRY: "retried",
    Ending.RELEASE: "released",
    Ending.PARK: "parked",
}


class Count:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def point(self, labels: tuple[str, ...]) -> Value:
        return Value(labels, self.value)


class Histogram:
    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        if value < 0.0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def point(self, labels: tuple[str, ...]) -> Distribution:
        return Distribution(labels, tuple(self.counts), self.sum)


P = TypeVar("P", Count, Histogram)


class Series(Generic[P]):
    """One instrument's points, by the values of its labels; at most `most` of them, and one for all other names."""

    def __init__(self, instrument: Instrument, new: Callable[[], P], *, most: int = MOST_SERIES) -> None:
        self._instrument = instrument
        self._new: Callable[[], P] = new
        self._most = most
        self._points: dict[tuple[str, ...], P] = {}

    def of(self, *labels: str) -> P:
        point = self._points.get(labels)
        if point is None:
            if len(self._points) >= self._most:
                labels = tuple(
                    OTHER if name in FOREIGN else label
                    for name, label in zip(self._instrument.labels, labels, strict=True)
                )
            point = self._points.setdefault(labels, self._new())
        return point

    def read(self) -> Reading:
        # A copy, made in one step: points are added while other threads read.
        return Reading(self._instrument, [point.point(labels) for labels, point in self._points.copy().items()])


class Tally:
    """Of one task's runs on one queue."""

    __slots__ = ("outcomes", "run", "wait")

    def __init__(self, run: Histogram, wait: Histogram, outcomes: dict[Ending, Count]) -> None:
        self.run = run
        self.wait = wait
        self.outcomes = outcomes


class Metrics:
    """Each method but `read` is called in the event loop's thread. `knows`: whether the app has a task of that name."""

    def __init__(self, clock: Clock, *, knows: Callable[[str], bool], most: int = MOST_SERIES) -> None:
        self._clock = clock
        self._knows = knows
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._run = Series(RUN_SECONDS, lambda: Histogram(DURATIONS), most=most)
        self._wait = Series(WAIT_SECONDS, lambda: Histogram(DURATIONS), most=most)
        self._runs = Series(RUNS, Count, most=most * len(_OUTCOMES))  # `_tally` keeps to `most`
        self._late = Series(LATE_FINISHES, Count, most=most)
        self._stalled = Series(STALLED, Count, most=2 * most)
        self._resent = Series(RESENT, Count)
        self._scanner = Series(SCANNER_LAG, lambda: Histogram(LAGS))
        self._scheduler = Series(SCHEDULER_LAG, lambda: Histogram(LAGS))
        self._loop = Series(LOOP_LAG, lambda: Histogram(LAGS))
        self._most = most
        self.loop_lag = self._loop.of().observe  # seconds, each time the loop was asked

    def started(self, run: Run) -> None:
        """A run has its slot."""
        if run.sent_at:  # else nobody said when its ticket was sent
            tally = self._tallies.get((run.queue, run.ticket.task)) or self._tally(run.queue, run.ticket.task)
            tally.wait.observe((run.started_at - run.sent_at) / 1000)

    def ended(self, run: Run, outcome: Outcome) -> None:
        """A run is over, or will not have its slot; its outcome is not recorded yet, and may be refused."""
        tally = self._tallies.get((run.queue, run.ticket.task)) or self._tally(run.queue, run.ticket.task)
        tally.outcomes[outcome.ending].value += 1
        if run.context is not None:  # its task was called
            tally.run.observe((self._clock.now() - run.started_at) / 1000)

    def finished_late(self, queue: str) -> None:
        self._late.of(queue).value += 1

    def stalled(self, queue: str, *, again: int, failed: int) -> None:
        """So many jobs of a dead worker run again, so many failed for good."""
        self._stalled.of(queue, "again").value += again
        self._stalled.of(queue, "failed").value += failed

    def resent(self, tickets: int, *, why: str) -> None:
        """`why`: unsent or lost."""
        self._resent.of(why).value += tickets

    def scanned(self, *, late: float) -> None:
        """Delayed jobs were taken, the first of them so many seconds after it was due."""
        self._scanner.of().observe(late)

    def fired(self, *, late: float) -> None:
        """A schedule was fired so many seconds after its run was due."""
        self._scheduler.of().observe(late)

    def read(self) -> list[Reading]:
        """By any thread."""
        every = (
            *(self._run, self._wait, self._runs, self._late, self._stalled, self._resent),
            *(self._scanner, self._scheduler, self._loop),
        )
        return [series.read() for series in every]

    def _tally(self, queue: str, task: str) -> Tally:
        if not self._knows(task):
            task = OTHER
        if (queue, task) not in self._tallies and len(self._tallies) >= self._most:
            queue = task = OTHER
        found = self._tallies.get((queue, task))
        if found is None:
            outcomes = {ending: self._runs.of(queue, task, name) for ending, name in _OUTCOMES.items()}
            found = Tally(self._run.of(queue, task), self._wait.of(queue, task), outcomes)
            self._tallies[queue, task] = found
        return found


def make_metrics(way: str, clock: Clock, *, knows: Callable[[str], bool]) -> Metrics | None:
    """`way`: the setting `metrics`."""
    return None if way == "off" else Metrics(clock, knows=knows)
