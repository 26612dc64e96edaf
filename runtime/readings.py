"""All that one process tells its operators in numbers, gathered when somebody asks: by any thread but the loop's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .health import Report
from .metrics import Instrument, Kind, Metrics, Reading, Value
from .prometheus import exposition
from .queue_gauges import QueueGauges

LIVE = Instrument(
    name="callboard_live",
    semantic="callboard.live",
    kind=Kind.GAUGE,
    help="1 while the event loop runs, as /live says.",
)
READY = Instrument(
    name="callboard_ready",
    semantic="callboard.ready",
    kind=Kind.GAUGE,
    help="1 while the process can do its work, as /ready says.",
)
LAG_NOW = Instrument(
    name="callboard_loop_behind_seconds",
    semantic="callboard.loop.behind",
    kind=Kind.GAUGE,
    unit="s",
    help="For how long the event loop has not run by now.",
)
WORKING = Instrument(
    name="callboard_actor_working",
    semantic="callboard.actor.working",
    kind=Kind.GAUGE,
    labels=("actor",),
    help="1 while an actor of this process does its work.",
)
RESTARTS = Instrument(
    name="callboard_actor_restarts_total",
    semantic="callboard.actor.restarts",
    kind=Kind.COUNTER,
    unit="{restart}",
    labels=("actor",),
    help="How often an actor of this process failed and was started again.",
)
REPORTED = (LIVE, READY, LAG_NOW, WORKING, RESTARTS)


class Readings:
    """`gauges` None: another process asks the store."""

    def __init__(self, metrics: Metrics, report: Callable[[], Report], gauges: QueueGauges | None) -> None:
        self._metrics = metrics
        self._report = report
        self._gauges = gauges

    def read(self) -> list[Reading]:
        """Not in the loop, which is asked for the gauges."""
        stored: Sequence[Reading] = self._gauges.ask() if self._gauges is not None else ()
        return [*self._metrics.read(), *reported(self._report()), *stored]

    def exposition(self) -> bytes:
        return exposition(self.read())


def reported(report: Report) -> list[Reading]:
    actors = report.actors
    return [
        Reading(LIVE, [Value((), int(report.live))]),
        Reading(READY, [Value((), int(report.ready))]),
        Reading(LAG_NOW, [Value((), report.loop_lag)]),
        Reading(WORKING, [Value((actor.kind,), int(actor.working)) for actor in actors]),
        Reading(RESTARTS, [Value((actor.kind,), actor.restarts) for actor in actors]),
    ]
