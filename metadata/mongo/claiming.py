"""`claim`, ticket by ticket: for all that the quick ways (`quick_claims.py`) leave undecided.

See `window.py` for what keeps a claim from slipping past a pause or a declared death, `standing.py` for who may claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..contract import Claimed, Ticket, Verdict
from ..job import Keep, State
from .connection import MongoConnection
from .enqueuing import adopted
from .names import TOMBSTONE, job_name, window_key
from .quick_claims import Quick, loop_time, quickly
from .record import LEAN, Record
from .standing import Standing, Standings
from .work import Work, settle


async def claim(
    connection: MongoConnection,
    standings: Standings,
    queue: str,
    owner: str,
    tickets: Sequence[Ticket],
    *,
    now: int,
    keep_expired: Keep,
    alone_from: int | None = None,
) -> list[Claimed]:
    if not tickets:
        return []
    quick = Quick(queue=queue, owner=owner, now=now, alone_from=alone_from, revisions=set())
    known = await quickly(connection, standings, quick, tickets)
    rest = [ticket for ticket in tickets if ticket.id not in known]
    if not rest:
        return [known[ticket.id] for ticket in tickets]
    looked: list[Standing] = []

    async def load(work: Work, some: Sequence[Ticket]) -> None:
        wanted = [ticket.adopt.deduplication for ticket in some if ticket.adopt is not None]
        keys = [window_key(queue, one.id) for one in wanted if one is not None]
        names = [job_name(queue, ticket.id) for ticket in some]
        if looked:  # the deadline of the last look may have been missed: from the next one on nothing else takes time
            await work.load(names, keys=keys, without=LEAN, clocked=False)
            standing = await standings.look(queue, owner, anew=True)
        else:
            standing, _ = await asyncio.gather(
                standings.look(queue, owner, anew=True), work.load(names, keys=keys, without=LEAN, clocked=False)
            )
        looked.append(standing)
        work.noted = standing.marks
        if standing.alive:
            work.clock = standing.clock_now(loop_time())
            work.deadline = standing.clock + connection.claim_window

    def decide(work: Work, ticket: Ticket) -> Claimed:
        if not looked[-1].alive:
            return Claimed(ticket.id, Verdict.DEAD)
        assert work.clock is not None
        record = work.find(job_name(queue, ticket.id))
        if record is not None and record.revision in quick.revisions:
            return _claimed(record, Verdict.CLAIMED)
        return _decide(
            work,
            queue,
            owner,
            ticket,
            now=now,
            clock=work.clock,
            paused=looked[-1].paused,
            keep_expired=keep_expired,
            alone_from=alone_from,
        )

    if len(rest) == len(tickets):
        return await settle(connection, tickets, load, decide)
    known |= {answer.id: answer for answer in await settle(connection, rest, load, decide)}
    return [known[ticket.id] for ticket in tickets]


def _decide(
    work: Work,
    queue: str,
    owner: str,
    ticket: Ticket,
    *,
    now: int,
    clock: int,
    paused: bool,
    keep_expired: Keep,
    alone_from: int | None,
) -> Claimed:
    name, due_by = job_name(queue, ticket.id), min(now, clock)
    record = work.find(name)
    if record is not None and work.is_new(name):
        # Only a document that is there can be written before a deadline: once more, when it is.
        work.again.add(work.entry)
        return Claimed(ticket.id, Verdict.UNKNOWN)
    if record is None or not record.exists:
        if record is not None and record.state == TOMBSTONE:
            return Claimed(ticket.id, Verdict.GONE)
        if ticket.adopt is None:
            return Claimed(ticket.id, Verdict.UNKNOWN)
        adopted(work, ticket.adopt, ticket.dispatch, now)
        work.again.add(work.entry)
        return Claimed(ticket.id, Verdict.UNKNOWN)
    if ticket.created_at not in (None, record.created_at):
        return Claimed(ticket.id, Verdict.STALE)
    verdict = _refusal(record, owner, ticket.dispatch, due_by)
    if verdict is Verdict.MINE:
        return _claimed(record, verdict)
    if verdict is not None:
        return Claimed(ticket.id, verdict)
    if record.expires_at is not None and record.expires_at <= due_by and record.attempts == 0:
        record.dispatch = ticket.dispatch
        record.end(State.EXPIRED, now=now, keep=keep_expired)
        work.keeps[queue, record.group or ""] = keep_expired.count
        return Claimed(ticket.id, Verdict.EXPIRED)
    if paused:
        record.hold(dispatch=ticket.dispatch + 1, now=now)
        return Claimed(ticket.id, Verdict.PAUSED)
    if alone_from is not None and record.stalled >= alone_from:
        return Claimed(ticket.id, Verdict.ALONE)
    if record.sent_at is not None:
        work.mark(queue, record.priority, record.sent_at)
    record.activate(owner=owner, dispatch=ticket.dispatch, now=now, clock=clock)
    return _claimed(record, Verdict.CLAIMED)


def _refusal(record: Record, owner: str, dispatch: int, due_by: int) -> Verdict | None:
    """Why a ticket does not get the job, in the order of `Jobs.claim`; None: nothing in the record keeps it from it."""
    if record.final:
        return Verdict.AHEAD if dispatch > record.dispatch else Verdict.FINAL
    if record.state == State.ACTIVE:
        if record.dispatch == dispatch and record.owner == owner:
            return Verdict.MINE
        return Verdict.TAKEN if record.dispatch >= dispatch else None
    if record.dispatch > dispatch:
        return Verdict.STALE
    if record.state == State.DELAYED and (record.dispatch == dispatch or (record.run_at or 0) > due_by):
        return Verdict.NOT_DUE
    return None


def _claimed(record: Record, verdict: Verdict) -> Claimed:
    return Claimed(record.id, verdict, record.fence, record.attempts, record.failures, record.stalled, record.parked_at)
