"""The quick ways of a claim, for tickets whose jobs wait as they were left: nearly all.

    unseen    a job that was made just now is most likely as `enqueue` made it: waiting, its ticket not known to be
              sent, never run. It is claimed by a write whose filter says so, without a look. That also finds a record
              that is written but not yet acknowledged by a majority, which no look does: its ticket may be quicker.
    seen      a look at the few fields that matter, then one write for all that agree in them, which holds only for
              what was read. Its filter names the revisions that were read, any of them for each name: a job can only
              be at another's revision if one call has left both there, and if it still waits at the same dispatch,
              where its ticket is, then a claim finds it as it was.

Both learn from the number of documents that matched whether every claim took effect. If not, the slow way
(`claiming.py`) looks at all of them again, and knows what is claimed already by its revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct
from pymongo import UpdateMany

from ..contract import Claimed, Ticket, Verdict
from ..job import State
from .connection import Document, MongoConnection, Statement
from .names import DUE, SENT, job_name
from .standing import Standing, Standings
from .work import in_time, watermarks

FRESH = 100  # ms: of a younger job nobody has noted yet that it was sent, which is done ten times a second
FEW = 4  # tickets that are tried unseen whatever their age, unless the last few were all known to be sent
MOMENTS = 4  # at which the jobs of a batch were made: each is a statement, and more cost more than a look
_FIELDS = {
    "_id": 0, "name": 1, "state": 1, "dispatch": 1, "created_at": 1, "revision": 1, "attempts": 1, "fence": 1,
    "failures": 1, "stalled": 1, "parked_at": 1, "expires_at": 1, "sent_at": 1, "priority": 1,
}  # fmt: skip


class Quick(Struct):
    """`revisions`: of the writes that were tried; what is at one of them is claimed."""

    queue: str
    owner: str
    now: int
    alone_from: int | None
    revisions: set[int]


async def quickly(
    connection: MongoConnection, standings: Standings, quick: Quick, tickets: Sequence[Ticket]
) -> dict[str, Claimed]:
    """The answers that are known, by id."""
    if len({ticket.id for ticket in tickets}) < len(tickets) or any(ticket.adopt is not None for ticket in tickets):
        return {}
    young = all(quick.now - FRESH < (ticket.created_at or 0) <= quick.now for ticket in tickets)
    unseen = young or (len(tickets) <= FEW and not standings.are_sent(quick.queue))
    if unseen and _may_be_as_made(quick, tickets):
        standing = await standings.look(quick.queue, quick.owner)
        if not standing.open:
            return {}
        fence, revision = standing.clock_now(loop_time()), _revision(connection, quick)
        statements = _claims_unseen(connection, quick, tickets, standing, fence, revision)
        claimed = (await connection.write(statements)).count
        if claimed == len(tickets):
            return {ticket.id: Claimed(ticket.id, Verdict.CLAIMED, fence, 1) for ticket in tickets}
        if young and len(tickets) <= FEW:  # most likely not recorded yet
            return {}
        standings.found(quick.queue, sent=claimed == 0)
    names = {job_name(quick.queue, ticket.id): ticket for ticket in tickets}
    standing, found = await asyncio.gather(
        standings.look(quick.queue, quick.owner),
        connection.find_numbers({"name": {"$in": list(names)}, "state": {"$in": [DUE, SENT]}}, _FIELDS),
    )
    plain = [one for one in found if _is_plain(one, names[one["name"]], quick)]
    if any(one["state"] == DUE for one in found):
        standings.found(quick.queue, sent=False)
    if not standing.open or not plain:
        return {}
    clock, revision = standing.clock_now(loop_time()), _revision(connection, quick)
    fences = [max(int(one.get("fence", 0)) + 1, clock) for one in plain]
    claims = _claims_seen(connection, quick, plain, fences, standing, revision)
    marks = list(watermarks({quick.queue: _marks(plain, standing)}))
    written = await connection.write([*claims, *marks])
    if written.refused:  # a queue's first mark met another's
        await connection.write(marks)
    if written.count != len(plain) + len(marks):
        return {}
    return {(answer := _answer(names, one, fence)).id: answer for one, fence in zip(plain, fences, strict=True)}


def _answer(names: Mapping[str, Ticket], one: Document, fence: int) -> Claimed:
    parked_at = one.get("parked_at")
    return Claimed(
        names[one["name"]].id,
        Verdict.CLAIMED,
        fence,
        one.get("attempts", 0) + 1,
        one.get("failures", 0),
        one.get("stalled", 0),
        None if parked_at is None else int(parked_at),
    )


def _revision(connection: MongoConnection, quick: Quick) -> int:
    revision = connection.revision()
    quick.revisions.add(revision)
    return revision


# -- unseen ------------------------------------------------------------------------------------------------------------


def _may_be_as_made(quick: Quick, tickets: Sequence[Ticket]) -> bool:
    return (
        quick.alone_from != 0
        and all(ticket.dispatch == 1 for ticket in tickets)
        and len({ticket.created_at for ticket in tickets}) <= MOMENTS
    )


def _claims_unseen(
    connection: MongoConnection, quick: Quick, tickets: Sequence[Ticket], standing: Standing, fence: int, revision: int
) -> list[Statement]:
    moments: dict[int | None, list[str]] = {}
    for ticket in tickets:
        moments.setdefault(ticket.created_at, []).append(job_name(quick.queue, ticket.id))
    statements: list[Statement] = []
    for created_at, names in moments.items():
        where: Document = {
            "name": {"$in": names},
            "state": DUE,
            "dispatch": 1,
            "attempts": None,
            "expires_at": None,
            **in_time(standing.clock + connection.claim_window),
        }
        if created_at is not None:
            where["created_at"] = created_at
        statements.append(UpdateMany(where, _claim(quick, fence=fence, attempts=1, revision=revision, state=DUE)))
    return statements


# -- seen --------------------------------------------------------------------------------------------------------------


def _is_plain(one: Document, ticket: Ticket, quick: Quick) -> bool:
    return (
        one.get("dispatch", 0) == ticket.dispatch
        and ticket.created_at in (None, one.get("created_at", 0))
        and "expires_at" not in one
        and (quick.alone_from is None or one.get("stalled", 0) < quick.alone_from)
    )


def _claims_seen(
    connection: MongoConnection,
    quick: Quick,
    plain: Sequence[Document],
    fences: Sequence[int],
    standing: Standing,
    revision: int,
) -> list[Statement]:
    alike: dict[tuple[str, int, int, int], list[Document]] = {}
    for one, fence in zip(plain, fences, strict=True):
        alike.setdefault((one["state"], one["dispatch"], one.get("attempts", 0), fence), []).append(one)
    deadline = in_time(standing.clock + connection.claim_window)
    return [
        UpdateMany(
            {
                "name": {"$in": [one["name"] for one in members]},
                "revision": {"$in": list({one["revision"] for one in members})},
                "state": state,
                "dispatch": dispatch,
                **deadline,
            },
            _claim(quick, fence=fence, attempts=attempts + 1, revision=revision, state=state),
        )
        for (state, dispatch, attempts, fence), members in alike.items()
    ]


def _claim(quick: Quick, *, fence: int, attempts: int, revision: int, state: str) -> Document:
    """As `Record.activate`."""
    gone = {"due" if state == DUE else "sent_at": ""}
    return {
        "$set": {
            "state": State.ACTIVE.value,
            "at": quick.now,
            "owner": quick.owner,
            "claimed_at": quick.now,
            "attempts": attempts,
            "fence": fence,
            "revision": revision,
        },
        "$unset": gone if attempts == 1 else {**gone, "progress": ""},
    }


def _marks(plain: Sequence[Document], standing: Standing) -> dict[int, int]:
    """The watermarks that these claims move."""
    marks: dict[int, int] = {}
    for one in plain:
        priority, sent_at = one.get("priority", 0), int(one.get("sent_at", 0))
        if sent_at > max(marks.get(priority, 0), standing.marks.get(str(priority), 0)):
            marks[priority] = sent_at
    return marks


def loop_time() -> float:
    return asyncio.get_running_loop().time()
