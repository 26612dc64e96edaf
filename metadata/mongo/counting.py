"""The counters of final jobs, compared with their index: what a call that was cut off may have left wrong.

A small group is counted by index before retention takes any of it. Of every group retention compares the counter once
an hour, a few groups in each of its rounds: a millisecond of the server's time for a small one, half a second for a
million jobs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

from pymongo import UpdateOne

from .connection import Document, MongoConnection
from .names import group_name

Group = tuple[str, str]  # its queue, its name

EXACT = 2_000  # final jobs of a group up to which its index is walked
TURNS = 3  # others may end jobs at the same time
AUDIT_EVERY = 3_600_000  # ms
AUDITS = 32  # groups in one call; more wait for the next one
EVERY_ONE = 1 << 40  # more than a group holds


async def count_by_index(connection: MongoConnection, queue: str, group: str, *, most: int) -> int:
    """How many jobs a group holds, at most `most`."""
    counted = await connection.aggregate(
        [
            {"$match": {"queue": queue, "group": group}},
            {"$limit": most},
            {"$group": {"_id": None, "count": {"$sum": 1}}},
        ]
    )
    return int(counted[0]["count"]) if counted else 0


async def correct(connection: MongoConnection, queue: str, group: str, *, noted: int, actual: int) -> None:
    """Unless it has moved on."""
    await connection.write([UpdateOne({"name": group_name(queue, group), "count": noted}, {"$set": {"count": actual}})])


@asynccontextmanager
async def counting(connection: MongoConnection, groups: AbstractSet[Group]) -> AsyncIterator[None]:
    """Around a call that counts jobs before it knows what it has written, and corrects that.

    Where the call is cut off in between, the counters of its groups are in doubt, and put right by the next call that
    counts in them: its own repeat, as a rule. A large group's is left to `audit_groups`, as is what a process that died
    has left.
    """
    in_doubt = connection.doubtful & groups
    connection.doubtful -= in_doubt  # so that calls within this one leave them to it
    try:
        yield
        for group in sorted(in_doubt):
            await _recount(connection, *group)
    except BaseException:
        connection.doubtful |= groups
        raise


async def _recount(connection: MongoConnection, queue: str, group: str) -> None:
    for _ in range(TURNS):
        found = await connection.find({"name": group_name(queue, group)}, {"_id": 0, "count": 1}, limit=1)
        actual = await count_by_index(connection, queue, group, most=EXACT + 1)
        if not found or actual == found[0]["count"] or actual > EXACT:
            break
        await correct(connection, queue, group, noted=found[0]["count"], actual=actual)


async def audit_groups(connection: MongoConnection, groups: Sequence[Document], *, now: int) -> None:
    """Put right the counters, in the server and in `groups`, of some that nobody has looked at within the hour."""
    due = [group for group in groups if not now - AUDIT_EVERY < group.get("audited_at", -AUDIT_EVERY) <= now]
    for group in due[:AUDITS]:
        group["count"] = await _audit_group(connection, group, now=now)


async def _audit_group(connection: MongoConnection, group: Document, *, now: int) -> int:
    """Jobs end meanwhile, so what was counted may belong to any moment between two looks at the counter: only what is
    wrong for each of them is corrected. A batch that is under way may be taken for wrong, and is put right again an
    hour later: errors do not add up.
    """
    noted, place = int(group["count"]), {"name": group["name"]}
    if not await connection.update_one({**place, "audited_at": group.get("audited_at")}, {"$set": {"audited_at": now}}):
        return noted  # another one does it
    actual = await count_by_index(connection, group["queue"], group["of"], most=EVERY_ONE)
    (after,) = await connection.find(place, {"_id": 0, "count": 1}, limit=1) or [group]
    least, most = sorted((noted, int(after["count"])))
    wrong = max(0, actual - most) - max(0, least - actual)
    if wrong:
        await connection.update_one(place, {"$inc": {"count": wrong}})
    return int(after["count"]) + wrong
