"""Read everything about a queue and name what is wrong. Not atomic: for a queue that nobody works on meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..contract import Passing
from ..job import State
from .connection import Document, MongoConnection
from .names import (
    DEAD_WORKER,
    DUE,
    GROUP,
    JOBS,
    QUEUE,
    SCHEDULE,
    SCHEDULES,
    SENT,
    SHADOW,
    TOMBSTONE,
    WORKER,
    group_name,
    job_name,
    names_left,
    queue_name,
    row_name,
    schedule_name,
    window_key,
)
from .record import ALL, FIELDS, Record, read

_KINDS = {*SCHEDULES, *JOBS, TOMBSTONE, SHADOW, WORKER, DEAD_WORKER, GROUP, QUEUE}


async def audit(connection: MongoConnection, queue: str) -> Sequence[str]:
    documents = await connection.find({"queue": queue})
    records = {
        document["name"]: read({field: document[field] for field in FIELDS if field in document}, ALL)
        for document in documents
        if "id" in document
    }
    return [*_names(queue, documents), *_records(queue, records, documents), *_groups(records, documents)]


def _names(queue: str, documents: Sequence[Document]) -> Iterator[str]:
    for one in documents:
        state, wanted = one["state"], None
        if state not in _KINDS:
            yield f"the document {one['name']!r} is of the unknown kind {state!r}"
        elif "id" in one:
            wanted = one["name"] if names_left(queue, one["id"], state, one["name"]) else job_name(queue, one["id"])
            for field in one.keys() - set(FIELDS):
                yield f"{one['id']!r} has the unknown field {field!r}"
        elif state in (WORKER, DEAD_WORKER):
            wanted = row_name(queue, one["boot"])
            if state == DEAD_WORKER and "dead" not in one:
                yield f"the row of {one['boot']!r} was removed, but its death was not declared"
        elif state in SCHEDULES:
            wanted = schedule_name(queue, one["schedule_id"])
            if (state == SCHEDULE) != (one["next_run"] is not None and not one["paused"]):
                yield f"the schedule {one['schedule_id']!r} runs next at {one['next_run']} and is a {state}"
            if ("pending" in one) != ("due" in one):
                yield f"the schedule {one['schedule_id']!r} holds jobs that nobody records"
        elif state == GROUP:
            wanted = group_name(queue, one["of"])
        else:
            wanted = queue_name(queue)
        if wanted is not None and wanted != one["name"]:
            yield f"the document {one['name']!r} should be named {wanted!r}"


def _records(queue: str, records: Mapping[str, Record], documents: Sequence[Document]) -> Iterator[str]:
    rows = {one["boot"] for one in documents if one["state"] == WORKER}
    for record in records.values():
        yield from _misplaced(record, rows)
        yield from _windows(queue, record, records)


def _misplaced(record: Record, rows: set[Any]) -> Iterator[str]:
    id, state = record.id, record.state
    belongs = {
        "due": state == DUE,
        "sent_at": state == SENT,
        "owner": state == State.ACTIVE,
        "group": record.final,
    }
    for field, wanted in belongs.items():
        if (getattr(record, field) is not None) != wanted:
            yield f"{id!r} is {state} with {field} {getattr(record, field)!r}"
    if record.forget_at is not None and not record.final:
        yield f"retention waits for {id!r}, which is not final"
    if state == State.ACTIVE and record.owner not in rows:
        yield f"{id!r} is active, but its owner {record.owner} has no row"
    if state == State.DELAYED and record.at != record.run_at:
        yield f"{id!r} is listed at {record.at} and due at {record.run_at}"
    if record.lost and state != State.ACTIVE:
        yield f"{id!r} is {state}, and lost"
    if not record.exists and (record.task or record.payload or record.history):
        yield f"{id!r} is a {state} and keeps what it was"
    if state == SHADOW and not record.windows:
        yield f"nothing but a window should be left of {id!r}, and it has none"


def _windows(queue: str, record: Record, records: Mapping[str, Record]) -> Iterator[str]:
    ends = [window.until for window in record.windows if window.until is not None]
    if record.closes_at != min(ends, default=None):
        yield f"{record.id!r} has a window to close at {record.closes_at}, not at {min(ends, default=None)}"
    for window in record.windows:
        holder = records.get(job_name(queue, window.holder))
        if not window.key.startswith(window_key(queue, "")):
            yield f"{record.id!r} holds {window.key!r} of another queue"
        if window.until is None and (holder is None or not holder.exists or holder.final):
            yield f"deduplication id {window.key!r} is held by {window.holder!r}, which is over"


def _groups(records: Mapping[str, Record], documents: Sequence[Document]) -> Iterator[Passing]:
    """What a process that died while it ended jobs leaves, for an hour at most: see `counting.py`."""
    counted = Counter(record.group for record in records.values() if record.group is not None)
    noted = {one["of"]: one["count"] for one in documents if one["state"] == GROUP}
    for group in counted.keys() | noted.keys():
        if counted[group] != noted.get(group, 0):
            kept, counter = counted[group], noted.get(group, 0)
            yield Passing(f"{kept} jobs are kept in {group!r}, and {counter} are noted, until retention counts them")
