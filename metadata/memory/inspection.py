"""Inspection in memory, and the audit that reads everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..contract import Counts
from ..job import FINAL, Job, Outbox, State
from .queue import QueueData
from .record import Record
from .state import Queues


class MemoryInspection:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Job | None]:
        records = self._queues[queue].records
        return [record.job() if (record := records.get(id)) is not None else None for id in ids]

    async def counts(self, queues: Sequence[str]) -> Mapping[str, Counts]:
        return {name: _counts(self._queues[name]) for name in queues}

    async def page(self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool) -> Sequence[Job]:
        data = self._queues[queue]
        return [data.records[id].job() for id in data.states[state].slice(offset, limit, descending=newest_first)]

    async def progress(self, queue: str, id: str) -> bytes | None:
        record = self._queues[queue].records.get(id)
        return None if record is None else record.progress

    async def audit(self, queue: str) -> Sequence[str]:
        return list(_audit(self._queues[queue]))


def _counts(data: QueueData) -> Counts:
    return Counts(
        waiting=len(data.states[State.WAITING]),
        delayed=len(data.states[State.DELAYED]),
        waiting_children=len(data.states[State.WAITING_CHILDREN]),
        active=len(data.states[State.ACTIVE]),
        completed=len(data.states[State.COMPLETED]),
        failed=len(data.states[State.FAILED]),
        cancelled=len(data.states[State.CANCELLED]),
        expired=len(data.states[State.EXPIRED]),
        unpublished=len(data.outbox) + len(data.held),
        held=len(data.held),
        paused=data.paused,
    )


def _audit(data: QueueData) -> Iterator[str]:
    for record in data.records.values():
        yield from _misplaced(data, record)
    held_by: dict[str, set[str]] = {}
    for name, ids in _indexes(data):
        for id in ids:
            if id not in data.records:
                yield f"{name} names {id!r}, of which there is no record"
            held_by.setdefault(id, set()).add(name)
    for id, record in data.records.items():
        wanted = set(_belongs(record))
        if held_by.get(id, set()) != wanted:
            yield f"{id!r} is {record.state} and in {sorted(held_by.get(id, ()))} instead of {sorted(wanted)}"
    yield from _leaks(data)


def _belongs(record: Record) -> Iterator[str]:
    """The indexes that a record must be in, and no others."""
    yield f"state {record.state}"
    if record.state is State.WAITING:
        yield f"sent {record.priority}" if record.outbox is Outbox.SENT else f"outbox {record.outbox}"
    elif record.state is State.ACTIVE:
        yield f"active {record.owner}"
        if record.cancel_requested:
            yield f"asked {record.owner}"
    elif record.state in FINAL and record.group is not None:
        yield f"group {record.group}"


def _indexes(data: QueueData) -> Iterator[tuple[str, Iterator[str]]]:
    for state, index in data.states.items():
        yield f"state {state}", iter(index)
    yield f"outbox {Outbox.DUE}", iter(data.outbox)
    yield f"outbox {Outbox.HELD}", iter(data.held)
    for priority, index in data.sent.items():
        yield f"sent {priority}", iter(index)
    for owner, ids in data.active.items():
        yield f"active {owner}", iter(ids)
    for owner, ids in data.asked.items():
        yield f"asked {owner}", iter(ids)
    for key, group in data.groups.items():
        yield f"group {key}", iter(group.members)


def _misplaced(data: QueueData, record: Record) -> Iterator[str]:
    if record.state is State.ACTIVE and record.owner not in data.rows:
        yield f"{record.id!r} is active, but its owner {record.owner} has no row"
    if (record.owner is not None) != (record.state is State.ACTIVE):
        yield f"{record.id!r} is {record.state} with the owner {record.owner}"
    if (record.outbox is Outbox.NONE) == (record.state is State.WAITING):
        yield f"{record.id!r} is {record.state} with the outbox {record.outbox!r}"
    if (record.group is not None) != (record.state in FINAL):
        yield f"{record.id!r} is {record.state} and counted in {record.group}"


def _leaks(data: QueueData) -> Iterator[str]:
    for id in data.aging:
        if id not in data.records or data.records[id].state not in FINAL:
            yield f"retention waits for {id!r}, which is not a final record"
    for deduplication_id, window in data.windows.items():
        if window.until is None:
            holder = data.records.get(window.job)
            if holder is None or holder.state in FINAL:
                yield f"deduplication id {deduplication_id!r} is held by {window.job!r}, which is over"
        if (window.until is not None) != (deduplication_id in data.closing):
            yield f"deduplication id {deduplication_id!r} is not known by its end"
    for id in data.tombstones:
        if id in data.records:
            yield f"{id!r} has a record and a tombstone"
    if set(data.buried) != set(data.tombstones):
        yield "tombstones and their last finishes differ"
