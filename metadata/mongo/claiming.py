"""`claim`: one look and one write; for jobs that were made just now, the write alone.

Such a job is most likely as `enqueue` made it: waiting, its ticket not known to be sent, never run. So it is claimed by
a write whose filter says so, before anybody looks at its record. That also finds a record that is written but not yet
acknowledged by a majority, which no look does: its ticket may be quicker. What the write does not match is looked
at, and decided as any other ticket.

See `window.py` for what keeps a claim from slipping past a pause or a declared death, `standing.py` for who may claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pymongo import UpdateMany

from ..contract import Claimed, Ticket, Verdict
from ..job import Keep, State
from .connection import Document, MongoConnection, Statement
from .enqueuing import adopted
from .names import DUE, TOMBSTONE, job_name, window_key
from .record import LEAN, Record
from .standing import Standing, Standings
from .work import Work, in_time, settle

FRESH = 1_000  # ms: of a younger job nobody has noted yet that it was sent
FEW = 4  # tickets that are tried unseen whatever their age: who has no more of them is idle
MOMENTS = 4  # at which the jobs of a batch were made: each is a statement, and more cost more than a look


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
    unseen: int | None = None  # the revision of what was claimed unseen
    if alone_from != 0 and _may_be_as_made(tickets, now):
        standing = await standings.look(queue, owner)
        if standing.alive and not standing.paused:
            fence, unseen = standing.clock_now(_time()), connection.revision()
            statements = _claims_as_made(connection, queue, owner, tickets, standing, now, fence, unseen)
            if (await connection.write(statements)).count == len(tickets):
                return [Claimed(ticket.id, Verdict.CLAIMED, fence, 1) for ticket in tickets]
    looked: list[Standing] = []

    async def load(work: Work, some: Sequence[Ticket]) -> None:
        wanted = [ticket.adopt.deduplication for ticket in some if ticket.adopt is not None]
        keys = [window_key(queue, one.id) for one in wanted if one is not None]
        names = [job_name(queue, ticket.id) for ticket in some]
        # Who looks again may have missed the deadline of the last look.
        standing, _ = await asyncio.gather(
            standings.look(queue, owner, anew=bool(looked)), work.load(names, keys=keys, without=LEAN, clocked=False)
        )
        looked.append(standing)
        work.claims = True
        work.noted = standing.marks
        if standing.alive:
            work.clock = standing.clock_now(_time())
            work.deadline = standing.clock + connection.claim_window

    def decide(work: Work, ticket: Ticket) -> Claimed:
        if not looked[-1].alive:
            return Claimed(ticket.id, Verdict.DEAD)
        assert work.clock is not None
        record = work.find(job_name(queue, ticket.id))
        if record is not None and record.revision == unseen:
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

    return await settle(connection, tickets, load, decide)


def _may_be_as_made(tickets: Sequence[Ticket], now: int) -> bool:
    return (
        all(ticket.dispatch == 1 and ticket.adopt is None for ticket in tickets)
        and (len(tickets) <= FEW or all(now - FRESH < (ticket.created_at or 0) <= now for ticket in tickets))
        and len({ticket.created_at for ticket in tickets}) <= MOMENTS
        and len({ticket.id for ticket in tickets}) == len(tickets)
    )


def _claims_as_made(
    connection: MongoConnection,
    queue: str,
    owner: str,
    tickets: Sequence[Ticket],
    standing: Standing,
    now: int,
    fence: int,
    revision: int,
) -> list[Statement]:
    moments: dict[int | None, list[str]] = {}
    for ticket in tickets:
        moments.setdefault(ticket.created_at, []).append(job_name(queue, ticket.id))
    update = {
        "$set": {
            "state": State.ACTIVE.value, "at": now, "owner": owner, "claimed_at": now, "attempts": 1, "fence": fence,
            "revision": revision,
        },
        "$unset": {"due": ""},
    }  # fmt: skip
    statements: list[Statement] = []
    for created_at, names in moments.items():
        where: Document = {
            "name": names[0] if len(names) == 1 else {"$in": names},
            "state": DUE,
            "dispatch": 1,
            "attempts": None,
            "expires_at": None,
            **in_time(standing.clock + connection.claim_window),
        }
        if created_at is not None:
            where["created_at"] = created_at
        statements.append(UpdateMany(where, update))
    return statements


def _time() -> float:
    return asyncio.get_running_loop().time()


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
