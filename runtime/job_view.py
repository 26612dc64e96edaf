"""A job as its users see it: an immutable snapshot with decoded arguments, never written back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ..metadata.job import FINAL, Job, State
from .results import ErrorInfo, decode_error, decode_result
from .wire import decode_body


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run in a job's history. `outcome`: completed, failed, retried, released, parked, cancelled, stalled.

    Of a stalled one, `host`, `pid` and `beside` say which process was lost, and how many more it had claimed."""

    attempt: int
    dispatch: int
    worker: str
    outcome: str
    started_at: int | None = None
    ended_at: int | None = None
    error: ErrorInfo | None = None
    reason: str | None = None
    host: str | None = None
    pid: int | None = None
    beside: int | None = None


class JobInfo(Struct, frozen=True, kw_only=True):
    """Moments are aware datetimes in UTC. `attempts` counts runs started, `failures` those that used up a retry,
    `stalled` those that a worker lost. `worker`: the boot id of who runs it now."""

    id: str
    queue: str
    task: str
    state: State
    args: list[Any]
    kwargs: dict[str, Any]
    priority: int
    created_at: datetime
    run_at: datetime | None
    expires_at: datetime | None
    claimed_at: datetime | None
    finished_at: datetime | None
    attempts: int
    failures: int
    stalled: int
    dispatch: int
    fence: int
    worker: str | None
    published: bool
    held: bool
    parked_at: datetime | None
    cancel_requested: bool
    deduplication_id: str | None
    meta: dict[str, Any]
    result: Any
    error: ErrorInfo | None
    history: list[Attempt]

    def to_json(self) -> dict[str, Any]:
        """Plain values, moments as RFC 3339."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class DelayedInfo(Struct, frozen=True):
    job_id: str
    run_at: datetime
    payload: dict[str, Any]


_attempt = msgspec.json.Decoder(Attempt)


def view(job: Job) -> JobInfo:
    body = decode_body(job.payload)
    return JobInfo(
        id=job.id,
        queue=job.queue,
        task=job.task,
        state=job.state,
        args=msgspec.json.decode(body.args),
        kwargs=msgspec.json.decode(body.kwargs),
        priority=job.priority,
        created_at=_required(job.created_at),
        run_at=_moment(job.run_at),
        expires_at=_moment(job.expires_at),
        claimed_at=_moment(job.claimed_at),
        finished_at=_moment(job.finished_at),
        attempts=job.attempts,
        failures=job.failures,
        stalled=job.stalled,
        dispatch=job.dispatch,
        fence=job.fence,
        worker=job.owner,
        published=job.outbox == "sent" or job.state is not State.WAITING,
        held=job.outbox == "held",
        parked_at=_moment(job.parked_at),
        cancel_requested=job.cancel_requested,
        deduplication_id=job.deduplication_id,
        meta=_object(body.meta),
        result=None if job.result is None else decode_result(job.result),
        error=None if job.error is None else decode_error(job.error),
        history=_numbered([_attempt.decode(entry) for entry in job.history], job),
    )


def _numbered(history: list[Attempt], job: Job) -> list[Attempt]:
    """Recovery takes many jobs at once and does not know which attempt each lost: every run leaves one entry, so the
    place of an entry tells."""
    latest = job.attempts - (job.state is State.ACTIVE)
    numbers = range(latest - len(history) + 1, latest + 1)
    return [
        entry if entry.attempt else msgspec.structs.replace(entry, attempt=max(0, number))
        for entry, number in zip(history, numbers, strict=True)
    ]


def delayed_view(job: Job) -> DelayedInfo:
    return DelayedInfo(
        job_id=job.id, run_at=_required(job.run_at or 0), payload=msgspec.json.decode(job.payload, type=dict[str, Any])
    )


def could_run_since(job: Job) -> int:
    """Of a waiting or delayed job, ms: when it was made, became due, or its run before ended, whichever came last. One
    that had ended and was brought back by `retry`: when it was sent, if it was."""
    try:
        last = _attempt.decode(job.history[-1]) if job.history else None
    except msgspec.MsgspecError:  # by a process of another version
        last = None
    ended = 0 if last is None else last.ended_at or 0
    sent = job.sent_at or 0 if last is not None and last.outcome in FINAL else 0
    return max(job.created_at, job.run_at or 0, ended, sent)


def _object(raw: Raw) -> dict[str, Any]:
    return msgspec.json.decode(raw, type=dict[str, Any]) if raw else {}


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _required(milliseconds)


def _required(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
