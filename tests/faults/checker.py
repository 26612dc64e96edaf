"""What a run under faults did wrong: jobs lost, runs repeated without a reason, jobs that nobody sent, early starts.

The idea is Jepsen's total-queue check, sharpened by what the protocol promises. A run that follows one that raised is a
retry. Any other is a repeat, and may happen only where the process of the run before it was killed or frozen while it
ran, where that run's finish was refused, or where the store forgot. Every repeated run is joined to one of these; those
that cannot be are `unexplained`. Two starts in one dispatch are explained by a
store that forgot, and by nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from faults.ledger import Entry, Event, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL of a process, by CLOCK_BOOTTIME in seconds."""

    process: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """SIGSTOP to SIGCONT of a process, by CLOCK_BOOTTIME in seconds; also a process cut off from the store."""

    process: int
    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What the store acknowledged in this time may be lost, by CLOCK_BOOTTIME in seconds."""

    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known after a run. `finals` names each finished job's state, `due` the ms before which it must not
    start, `refused` the (job, dispatch) of each late finish that was refused.

    A handler that ended `finish_seconds` before a kill or a pause counts as not yet recorded at that moment.
    """

    submitted: frozenset[str]
    accepted: frozenset[str]
    finals: Mapping[str, str]
    ledger: Sequence[Entry]
    due: Mapping[str, int] = field(default_factory=dict)
    kills: Sequence[Kill] = ()
    pauses: Sequence[Pause] = ()
    refused: frozenset[tuple[str, int]] = frozenset()
    leases_lost: frozenset[tuple[str, str]] = frozenset()
    forgotten: Sequence[Forgotten] = ()
    finish_seconds: float = 2.0

    def __post_init__(self) -> None:
        if stray := self.accepted - self.submitted:
            raise ValueError(f"accepted, but never submitted: {sorted(stray)[:5]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Ids or runs that did wrong, and how often the faults hit something."""

    lost: tuple[str, ...]
    repeated: tuple[Run, ...]
    unexplained: tuple[Run, ...]
    phantom: tuple[str, ...]
    early: tuple[Run, ...]
    starts: int
    accepted: int
    finals: int
    kills: int
    kills_that_hit: int
    pauses: int
    pauses_that_hit: int

    @property
    def sound(self) -> bool:
        """Repeated runs that are explained are no fault."""
        return not (self.lost or self.unexplained or self.phantom or self.early)

    def __str__(self) -> str:
        wrong = (
            f"lost {len(self.lost)}, repeated {len(self.repeated)}, unexplained {len(self.unexplained)}, "
            f"phantom {len(self.phantom)}, early {len(self.early)}"
        )
        done = f"accepted {self.accepted}, final {self.finals}, starts {self.starts}"
        hit = f"kills {self.kills_that_hit} of {self.kills} hit, pauses {self.pauses_that_hit} of {self.pauses} hit"
        return f"{wrong} | {done} | {hit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """One run with its times; `end` is None where the handler was never seen to end."""

    run: Run
    start: float
    end: float | None
    failed: bool
    moment: int

    def under_way(self, since: float, until: float, finish_seconds: float) -> bool:
        """Whether it ran, or had ended but was perhaps not yet recorded, at some moment from `since` to `until`."""
        return self.start <= until and (self.end is None or since <= self.end + finish_seconds)


def check(evidence: Evidence) -> Verdict:
    """Join ledger, final records and fault log."""
    spans = _spans(evidence.ledger)
    repeated = list(_repeated(spans))
    finals = frozenset(evidence.finals)
    started = frozenset(span.run.job for span in spans)
    late = evidence.finish_seconds
    return Verdict(
        lost=tuple(sorted(evidence.accepted - finals)),
        repeated=tuple(again.run for _, again in repeated),
        unexplained=tuple(again.run for before, again in repeated if not _explained(before, again, evidence)),
        phantom=tuple(sorted((finals | started) - evidence.submitted)),
        early=tuple(span.run for span in spans if span.moment < evidence.due.get(span.run.job, 0)),
        starts=len(spans),
        accepted=len(evidence.accepted),
        finals=len(finals),
        kills=len(evidence.kills),
        kills_that_hit=sum(any(_killed(span, kill, 0) for span in spans) for kill in evidence.kills),
        pauses=len(evidence.pauses),
        pauses_that_hit=sum(any(_paused(span, pause, late) for span in spans) for pause in evidence.pauses),
    )


def _spans(ledger: Iterable[Entry]) -> list[_Span]:
    """Starts in the order of the ledger, each with its own end: the next end of the same run."""
    ends: defaultdict[Run, list[Entry]] = defaultdict(list)
    starts: list[Entry] = []
    for entry in ledger:
        if entry.event is Event.START:
            starts.append(entry)
        else:
            ends[entry.run].append(entry)
    return [_span(entry, ends[entry.run].pop(0) if ends[entry.run] else None) for entry in starts]


def _span(start: Entry, end: Entry | None) -> _Span:
    return _Span(
        run=start.run,
        start=start.elapsed,
        end=end.elapsed if end else None,
        failed=end is not None and end.event is Event.FAILED,
        moment=start.moment,
    )


def _repeated(spans: Iterable[_Span]) -> Iterable[tuple[_Span, _Span]]:
    """Each start that is not the job's first and no retry, with the run before it, in order of fence, dispatch, time: a
    store that is restored from a copy begins again with an old dispatch."""
    jobs: defaultdict[str, list[_Span]] = defaultdict(list)
    for span in spans:
        jobs[span.run.job].append(span)
    for runs in jobs.values():
        runs.sort(key=lambda span: (span.run.fence, span.run.dispatch, span.start))
        yield from ((before, again) for before, again in pairwise(runs) if not _retries(before, again))


def _retries(before: _Span, again: _Span) -> bool:
    ended = before.failed and before.end is not None and before.end <= again.start
    return ended and before.run.dispatch < again.run.dispatch


def _explained(before: _Span, again: _Span, evidence: Evidence) -> bool:
    late = evidence.finish_seconds
    if any(before.under_way(lapse.since, lapse.until, late) for lapse in evidence.forgotten):
        return True  # the same dispatch too: a store that forgot a claim, or a send, does it again
    if before.run.dispatch == again.run.dispatch:
        return False
    return (
        (before.run.job, before.run.dispatch) in evidence.refused
        or (before.run.job, before.run.boot) in evidence.leases_lost
        or any(_killed(before, kill, late) and kill.elapsed <= again.start for kill in evidence.kills)
        or any(_paused(before, pause, late) and pause.since <= again.start for pause in evidence.pauses)
    )


def _killed(span: _Span, kill: Kill, late: float) -> bool:
    return span.run.process == kill.process and span.under_way(kill.elapsed, kill.elapsed, late)


def _paused(span: _Span, pause: Pause, late: float) -> bool:
    return span.run.process == pause.process and span.under_way(pause.since, pause.until, late)
