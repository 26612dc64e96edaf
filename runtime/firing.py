"""What a scheduler does with a schedule that is due: a decision, made of what was read and of the time alone.

Every replica that reads the same record at the same time decides the same; `Schedules.fire` lets one of them act.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime

import msgspec
from msgspec import Struct

from .schedule_record import Happening, ReadSchedule, ScheduleState, past, run_at
from .triggers import STAMP, Fate, Overlap, Plan, Tally
from .triggers.contract import MILLISECOND
from .triggers.grid import from_ms, to_ms

MAX_RUNS = 64  # jobs of one firing: what is left of a long catch-up follows with the next
# Of these jobs, one at least: MongoDB notes them in the schedule's document, which may have 16 MB.
MAX_BYTES = 4 * 1024 * 1024
LOOK_AGAIN_MS = 1000  # while an occurrence waits for the end of another
MAX_RUNNING = 10_100  # `max_instances` may be 10,000


class Decision(Struct, frozen=True, kw_only=True):
    """`runs`: occurrences to enqueue, oldest first. `cancels`: occurrences whose jobs are to be cancelled once the
    firing took effect. `happenings`: what this firing adds to the history."""

    runs: tuple[int, ...]
    cancels: tuple[int, ...]
    happenings: tuple[Happening, ...]
    state: ScheduleState
    next_run: int | None


def decide(read: ReadSchedule, *, now: int, ended: Set[int]) -> Decision:
    """`ended`: those of the state's `running` whose jobs have ended."""
    state, policy = read.state, read.policy
    moment = from_ms(now)
    plan = _plan(read, moment)
    candidates = [to_ms(occurrence) for occurrence in plan.run]
    most = max(1, min(MAX_RUNS, MAX_BYTES // len(read.record.definition)))
    following = candidates[most] if len(candidates) > most else _ms(plan.following)
    happenings = [*_tallied(read, plan, now)]
    running = [occurrence for occurrence in state.running if occurrence not in ended]
    waiting = list(state.waiting)
    runs: list[int] = []
    cancels: list[int] = []
    while waiting and len(runs) < most and (policy.max_instances is None or len(running) < policy.max_instances):
        runs.append(waiting[0])
        running.append(waiting.pop(0))
    if policy.overlap is not Overlap.QUEUE and len(runs) < most:  # it was while they came
        happenings += [Happening(at=now, fate=Fate.SKIPPED, occurrence=occurrence) for occurrence in waiting]
        waiting = []
    for occurrence in candidates[:most]:
        admission = policy.admit(running=len(running), queued=len(waiting))
        if admission.run:
            # What is asked to end still counts until it has ended, so that a crash before it was asked is made up for.
            cancels += [old for old in running[: admission.cancel] if old not in cancels]
            runs.append(occurrence)
            running.append(occurrence)
        elif admission.queue:
            waiting.append(occurrence)
        else:
            happenings.append(Happening(at=now, fate=Fate.SKIPPED, occurrence=occurrence))
    overtaken = {occurrence for occurrence in runs if occurrence in cancels}
    happenings += [
        Happening(at=now, fate=Fate.COALESCED if occurrence in overtaken else Fate.RAN, occurrence=occurrence)
        for occurrence in runs
    ]
    running = [occurrence for occurrence in running if occurrence not in overtaken]
    limited = policy.max_instances is not None
    after = msgspec.structs.replace(
        state,
        engine=STAMP,
        expected=following,
        waiting=tuple(waiting),
        running=tuple(running[-MAX_RUNNING:]) if limited else (),
        **past(state, happenings),
    )
    return Decision(
        runs=tuple(occurrence for occurrence in runs if occurrence not in overtaken),
        cancels=tuple(occurrence for occurrence in cancels if occurrence not in overtaken),
        happenings=tuple(happenings),
        state=after,
        next_run=_next_run(read, following, waiting=bool(waiting), now=now),
    )


def wants_ends(read: ReadSchedule) -> Sequence[int]:
    """Occurrences of whose jobs `decide` needs to know whether they have ended."""
    return read.state.running if read.policy.max_instances is not None else ()


def _plan(read: ReadSchedule, now: datetime) -> Plan:
    expected = None if read.state.expected is None else from_ms(read.state.expected)
    if expected is not None and read.state.engine != STAMP:
        # Another engine computed it. This one may place it later; what it places earlier is left to the next.
        expected = read.trigger.next_after(expected - MILLISECOND)
    if expected is None:
        return Plan(run=(), following=None)
    return read.policy.plan(read.trigger, expected, now, seed=read.record.id)


def _tallied(read: ReadSchedule, plan: Plan, now: int) -> list[Happening]:
    first = read.state.expected or 0
    return [
        Happening(at=now, fate=fate, occurrence=first, count=tally.count, exact=tally.exact)
        for fate, tally in ((Fate.COALESCED, plan.coalesced), (Fate.MISSED, plan.missed))
        if tally != Tally(count=0)
    ]


def _next_run(read: ReadSchedule, following: int | None, *, waiting: bool, now: int) -> int | None:
    """Later than the run that is due, whatever the clock says: that is what makes each firing happen once."""
    wanted = run_at(read.trigger, following, read.record.id)
    if waiting:
        look_again = now + LOOK_AGAIN_MS
        wanted = look_again if wanted is None else min(wanted, look_again)
    if wanted is None or read.record.next_run is None:
        return wanted
    return max(wanted, read.record.next_run + 1)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else to_ms(moment)
