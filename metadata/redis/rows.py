"""Between the contract's values and what scripts take and answer: plain lists, packed by msgpack on the way in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..contract import Ready
from ..job import Job, Keep, NewJob, Outbox, State

STATES = {state.value.encode(): state for state in State}

# The index that lists the jobs of a state, oldest first; active jobs are indexed by owner.
INDEXES = {
    State.WAITING: "waiting",
    State.DELAYED: "delayed",
    State.WAITING_CHILDREN: "children",
    State.COMPLETED: "final:completed",
    State.FAILED: "final:failed",
    State.CANCELLED: "final:cancelled",
    State.EXPIRED: "final:expired",
}


def text(value: bytes | None) -> msgspec.Raw | None:
    """Bytes as msgpack's text: Redis's unpacker knows no other kind of string, and does not look into them."""
    if value is None:
        return None
    size = len(value)
    if size < 32:
        head = bytes((0xA0 | size,))
    elif size < 1 << 8:
        head = b"\xd9" + size.to_bytes(1, "big")
    elif size < 1 << 16:
        head = b"\xda" + size.to_bytes(2, "big")
    else:
        head = b"\xdb" + size.to_bytes(4, "big")
    return msgspec.Raw(head + value)


def keep_row(keep: Keep) -> tuple[Any, ...]:
    return keep.age, keep.count, keep.group


def job_row(job: NewJob) -> tuple[Any, ...]:
    wanted = job.deduplication
    return (
        job.id,
        job.task,
        text(job.payload),
        job.priority,
        job.created_at,
        job.run_at,
        job.expires_at,
        None if wanted is None else (wanted.id, wanted.ttl, wanted.extend, wanted.replace),
    )


def read_ready(queue: str, rows: Sequence[Any]) -> list[Ready]:
    """`rows`: id, dispatch, priority, payload, and so on."""
    return [
        Ready(queue, rows[at].decode(), rows[at + 1], rows[at + 2], rows[at + 3] or b"")
        for at in range(0, len(rows), 4)
    ]


_unpack = msgspec.msgpack.Decoder(list[Any]).decode


def read_job(queue: str, id: str, row: Sequence[Any]) -> Job | None:
    """`row`: the packed record of `record.lua`, payload, result, error, history."""
    packed, payload, result, error, history = row
    if packed is None:
        return None
    fields: list[Any] = [None if field is False else field for field in _unpack(packed)]
    (
        state, dispatch, outbox, owner, fence, attempts, failures, stalled, priority, sent_at, run_at, expires_at,
        claimed_at, finished_at, parked_at, cancel, deduplication, _group, _history, _last_finish, task, created_at,
    ) = fields[:22]  # fmt: skip
    return Job(
        id=id,
        queue=queue,
        task=task,
        payload=payload or b"",
        priority=priority,
        created_at=created_at,
        state=State(state),
        dispatch=dispatch,
        attempts=attempts,
        failures=failures,
        stalled=stalled,
        fence=fence,
        owner=owner,
        outbox=Outbox(outbox),
        sent_at=sent_at,
        run_at=run_at,
        expires_at=expires_at,
        claimed_at=claimed_at,
        finished_at=finished_at,
        parked_at=parked_at,
        cancel_requested=bool(cancel),
        deduplication_id=deduplication,
        result=result,
        error=error,
        history=tuple(history),
    )
