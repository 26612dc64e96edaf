"""`finish`: one write where each outcome ends its job for good, which is nearly always; else a look first.

The quick way (`ending.py`) writes with the fence itself as the guard, and learns from the number of documents that
matched whether every outcome took effect. What it leaves undecided is read, and decided as any other call.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import Ending, Finish, Finished, Outcome
from ..job import State
from .connection import MongoConnection, Statement
from .counting import counting
from .ending import ENDED, end, fence_of, group_of
from .names import job_name
from .record import Record
from .work import Work, count_group, settle


async def finish(
    connection: MongoConnection, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int
) -> list[Finished]:
    if not outcomes:
        return []
    if not all(outcome.ending in ENDED for outcome in outcomes) or len({one.id for one in outcomes}) < len(outcomes):
        return await _one_by_one(connection, queue, outcomes, now=now, grace=grace, written=None)
    async with counting(connection, {(queue, group_of(outcome)) for outcome in outcomes}):
        written = connection.revision()
        if await _end_all(connection, queue, outcomes, now=now, revision=written):
            return [Finished(one.id, Finish.DONE, ENDED[one.ending], one.dispatch) for one in outcomes]
        return await _one_by_one(connection, queue, outcomes, now=now, grace=grace, written=written)


async def _one_by_one(
    connection: MongoConnection, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int, written: int | None
) -> list[Finished]:
    """`written`: the revision of those that were ended all together before, when each of `outcomes` was counted."""
    quickly: set[str] = set()

    async def load(work: Work, some: Sequence[Outcome]) -> None:
        await work.load(job_name(queue, outcome.id) for outcome in some)

    def decide(work: Work, outcome: Outcome) -> Finished:
        record = work.find(job_name(queue, outcome.id))
        if record is not None and record.revision == written:
            quickly.add(outcome.id)
            return Finished(outcome.id, Finish.DONE, record.job_state, record.dispatch)
        return _decide(work, queue, record, outcome, now=now, grace=grace)

    answers = await settle(connection, outcomes, load, decide)
    if written is not None:
        await connection.write(_counts(queue, [one for one in outcomes if one.id not in quickly], -1))
    return answers


async def _end_all(
    connection: MongoConnection, queue: str, outcomes: Sequence[Outcome], *, now: int, revision: int
) -> bool:
    statements = end(queue, outcomes, now=now, revision=revision)
    counts = _counts(queue, outcomes, 1)
    written = await connection.write([*statements, *counts])
    # A group's first count may meet another's.
    await connection.write([counts[place - len(statements)] for place in written.refused])
    return written.count + len(written.refused) == len(outcomes) + len(counts)


def _counts(queue: str, outcomes: Sequence[Outcome], sign: int) -> list[Statement]:
    sizes: dict[str, int] = {}
    keeps: dict[str, int | None] = {}
    for outcome in outcomes:
        group = group_of(outcome)
        sizes[group] = sizes.get(group, 0) + sign
        keeps[group] = outcome.keep.count
    return [count_group(queue, group, size, keeps[group]) for group, size in sizes.items()]


def _decide(work: Work, queue: str, record: Record | None, outcome: Outcome, *, now: int, grace: int) -> Finished:
    fence = fence_of(outcome)
    if record is None:
        return Finished(outcome.id, Finish.REFUSED, None, 0)
    if not holds(record, outcome.dispatch, outcome.owner):
        answer = Finish.RECORDED if record.last_finish == fence else Finish.REFUSED
        if not record.exists:
            return Finished(outcome.id, answer, None, 0)
        other = _other(record, outcome.owner) if answer is Finish.REFUSED else None
        return Finished(outcome.id, answer, record.job_state, record.dispatch, other)
    ending = outcome.ending
    record.last_finish = fence
    record.remember(outcome.history)
    record.failures += ending in (Ending.RETRY, Ending.FAILED)
    if record.cancel and ending not in ENDED:
        ending = Ending.CANCELLED
    if outcome.error is not None or ending in ENDED:
        record.error = outcome.error
    if ending in ENDED:
        record.result = outcome.result
        before = [window.key for window in record.windows]
        record.end(ENDED[ending], now=now, keep=outcome.keep)
        work.index_windows(record, before)
        work.keeps[queue, record.group or ""] = outcome.keep.count
        return Finished(outcome.id, Finish.DONE, record.job_state, record.dispatch)
    if ending is Ending.PARK and record.parked_at is None:
        record.parked_at = now
    due_by = now if work.clock is None else min(now, work.clock)
    if outcome.run_at is not None and outcome.run_at > due_by:
        record.delay(outcome.run_at)
    else:
        record.wait(dispatch=record.dispatch + 1, due=now + grace, now=now)
    return Finished(outcome.id, Finish.DONE, record.job_state, record.dispatch)


def _other(record: Record, owner: str) -> str | None:
    """Who runs the job now, or has ended it, if that is not `owner`."""
    other = record.owner
    if record.final and record.last_finish is not None:
        other = record.last_finish.split(":", 2)[2]
    return None if other == owner else other


def holds(record: Record, dispatch: int, owner: str) -> bool:
    return record.state == State.ACTIVE and record.dispatch == dispatch and record.owner == owner and not record.lost
