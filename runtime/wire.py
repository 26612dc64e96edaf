"""Job <-> message. The only module that knows how a dispatched job, an event and a command look as JSON.

    callboard.jobs      {"v": 1, "epoch": "...", "at": 1790000000000, "jobs": [TICKET, ...]}, perhaps "spare": true
    TICKET              {"dispatch": 2, "id": ..., "queue": ..., "task": ..., "args": [...], "kwargs": {...}, ...}
    callboard.events    {"v": 1, "events": [{"event": "completed", "job": ..., "queue": ..., "at": ..., ...}]}
    callboard.control   {"v": 1, "command": "wake", ...}

A job's payload is its ticket without the dispatch number, encoded once where the job is made. The store keeps those
bytes; sending a ticket again puts the number in front of them. Arguments are carried as raw JSON from the producer to
the task, so nothing on the way can change a number or a list.

Versions: members that are added change nothing, since readers pass over what they do not know. Whoever sends what an
older reader must not take for what it knows raises `v`: of the message, or of the one job whose payload needs it, which
keeps it through relays and scanners of any version. Every version keeps, for the older ones, `v` and `jobs` of a
message, and of each ticket `dispatch`, `id`, `queue`, `task` and `created_at`: with these a worker parks in the store
what it cannot read, for one that can.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ..metadata.contract import Ready
from ..metadata.job import NewJob

VERSION = 1
MAX_BUNDLE_JOBS = 128
MAX_READ_JOBS = 8 * MAX_BUNDLE_JOBS  # one at a time, of a message that cannot be read as a whole
MAX_BUNDLE_BYTES = 512 * 1024  # a larger job travels alone

MAX_MOMENT = 2**53  # ms: what every store can hold exactly
MAX_DISPATCH = 2**31
MAX_DURATION = 11 * 366 * 86_400_000

Moment = Annotated[int, Meta(ge=0, le=MAX_MOMENT)]
Id = Annotated[str, Meta(min_length=1, max_length=400)]

NO_ARGS = Raw(b"[]")
NO_KWARGS = Raw(b"{}")
NO_JOBS = "it holds no jobs"
ABSENT = Raw(b"")  # false; msgspec takes `Raw | None` for "null and nothing else"


class Body(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is constant in a job's life. Moments in ms since the epoch; `timeout` in ms; `backoff` as in retry.py. `v`:
    the version that a reader has to know; of a later one than ours, only what every version keeps is here."""

    id: Id
    queue: Annotated[str, Meta(min_length=1, max_length=128)]
    task: Annotated[str, Meta(min_length=1, max_length=200)]
    created_at: Moment
    v: Annotated[int, Meta(ge=1)] = 1
    args: Raw = NO_ARGS
    kwargs: Raw = NO_KWARGS
    priority: Annotated[int, Meta(ge=1, le=10)] = 5
    expires_at: Moment | None = None
    retries: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    backoff: Raw = ABSENT
    timeout: Annotated[int, Meta(ge=1, le=MAX_DURATION)] | None = None
    meta: Raw = ABSENT
    traceparent: str | None = None


class Ticket(Body, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    dispatch: Annotated[int, Meta(ge=1, le=MAX_DISPATCH)]

    @property
    def later(self) -> bool:
        """It is of a version that is not ours to read."""
        return self.v > VERSION


class Bundle(Struct, frozen=True, kw_only=True):
    """`spare`: most likely nobody needs it, its job having been handed over to a standing claim."""

    v: int
    epoch: str
    at: Moment
    jobs: list[Ticket]
    spare: bool = False


class _LooseBundle(Struct, frozen=True, kw_only=True):
    v: int
    epoch: str = ""
    at: Moment = 0
    jobs: list[Raw] = []


class _Versioned(Struct, frozen=True):
    v: int


class _Kept(Struct, frozen=True, kw_only=True):
    """Of a ticket, and of the payload that it is made of, what every version keeps."""

    id: Id
    queue: Annotated[str, Meta(min_length=1, max_length=128)]
    task: Annotated[str, Meta(min_length=1, max_length=200)]
    created_at: Moment
    dispatch: Annotated[int, Meta(ge=1, le=MAX_DISPATCH)] | None = None
    v: Annotated[int, Meta(ge=1)] = 1


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Something that happened to a job, for anyone. `event`: completed, failed, retried, released, parked,
    cancelled, expired, stalled, late (`worker` lost its lease and was refused; `other` has the job, or has ended it);
    of a schedule's occurrences (`run_at` is theirs): occurred, coalesced, missed, skipped. `result`: of a completed
    job, where it is small."""

    event: str
    job: str
    queue: str
    task: str
    at: int
    dispatch: int = 0
    attempt: int = 0
    worker: str | None = None
    error: str | None = None
    run_at: int | None = None
    other: str | None = None
    result: Raw | UnsetType = UNSET


class Events(Struct, frozen=True, kw_only=True):
    events: list[Event]
    v: int = VERSION


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message between actors. `command`: wake, cancel, pause, resume. `queue`, `jobs`: what it is about. `run_at` of
    a wake: there is a job that is due then, and nothing to look for before."""

    command: str
    v: int = VERSION
    queue: str | None = None
    jobs: tuple[str, ...] = ()
    run_at: Moment | None = None


class Malformed(Struct, frozen=True):
    """A part of a message that could not be read: its bytes and why. `later`: it is of a later version, for somebody
    else to read."""

    body: bytes
    reason: str
    later: bool = False


_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.json.Encoder()
_body = msgspec.json.Decoder(Body)
_ticket = msgspec.json.Decoder(Ticket)
_bundle = msgspec.json.Decoder(Bundle)
_loose = msgspec.json.Decoder(_LooseBundle)
_versioned = msgspec.json.Decoder(_Versioned)
_kept = msgspec.json.Decoder(_Kept)
_events = msgspec.json.Decoder(Events)
_command = msgspec.json.Decoder(Command)


def encode_body(body: Body) -> bytes:
    return _encoder.encode(body)


def decode_body(payload: bytes) -> Body:
    """A stored payload; of a later version, what can be read. Raises msgspec.DecodeError if it is not one of ours."""
    try:
        return _body.decode(payload)
    except _BAD:
        if _version_of(payload) <= VERSION:
            raise
    kept = _kept.decode(payload)
    return Body(id=kept.id, queue=kept.queue, task=kept.task, created_at=kept.created_at, v=kept.v)


def body_of(ticket: Ticket) -> Body:
    values = {name: getattr(ticket, name) for name in Body.__struct_fields__}
    return Body(**values)


def new_job(body: Body) -> NewJob:
    """The record of a job that is to be adopted from its ticket."""
    return NewJob(
        id=body.id,
        queue=body.queue,
        task=body.task,
        payload=encode_body(body),
        priority=body.priority,
        created_at=body.created_at,
        expires_at=body.expires_at,
    )


def encode_bundle(ready: Iterable[Ready], *, epoch: str, at: int, spare: bool = False) -> bytes:
    tickets = b",".join(b'{"dispatch":%d,%s' % (job.dispatch, job.payload[1:]) for job in ready)
    mark = b'"spare":true,' if spare else b""
    return b'{"v":%d,"epoch":"%s","at":%d,%b"jobs":[%b]}' % (VERSION, epoch.encode(), at, mark, tickets)


def ticket_of(payload: bytes, dispatch: int) -> Ticket | None:
    """The ticket that would be sent of a stored payload; None where nobody could read it."""
    raw = Raw(b'{"dispatch":%d,%s' % (dispatch, payload[1:]))
    try:
        return _read_ticket(raw, version=VERSION)
    except _BAD:
        return None


def split_bundles(ready: Sequence[Ready]) -> Iterable[Sequence[Ready]]:
    """Cut jobs of one queue and priority into bundles within the limits."""
    bundle: list[Ready] = []
    size = 0
    for job in ready:
        if bundle and (len(bundle) == MAX_BUNDLE_JOBS or size + len(job.payload) > MAX_BUNDLE_BYTES):
            yield bundle
            bundle, size = [], 0
        bundle.append(job)
        size += len(job.payload)
    if bundle:
        yield bundle


def decode_bundle(body: bytes) -> tuple[Bundle, list[Malformed]]:
    """The jobs that can be read, or parked (`Ticket.later`), and what can't be, each with its reason. Never raises for
    bad bytes."""
    try:
        bundle = _bundle.decode(body)
    except _BAD as error:
        return _decode_piecewise(body, reason=str(error))
    if bundle.v > VERSION or any(ticket.v > VERSION for ticket in bundle.jobs):
        return _decode_piecewise(body, reason="")
    return bundle, [] if bundle.jobs else [Malformed(body, NO_JOBS)]


def _empty() -> Bundle:
    return Bundle(v=VERSION, epoch="", at=0, jobs=[])


def _decode_piecewise(body: bytes, *, reason: str) -> tuple[Bundle, list[Malformed]]:
    try:
        loose = _loose.decode(body)
    except _BAD:
        return _empty(), [_malformed(body, reason)]
    if len(loose.jobs) > MAX_READ_JOBS:
        many = f"it holds {len(loose.jobs)} jobs; of more than {MAX_READ_JOBS} none is read where one cannot be"
        return _empty(), [_malformed(body, many, at_least=loose.v)]
    tickets: list[Ticket] = []
    malformed: list[Malformed] = []
    for raw in loose.jobs:
        try:
            tickets.append(_read_ticket(raw, version=loose.v))
        except _BAD as error:
            malformed.append(_malformed(bytes(raw), str(error), at_least=loose.v))
    if not loose.jobs:
        malformed.append(_malformed(body, NO_JOBS))
    return Bundle(v=loose.v, epoch=loose.epoch, at=loose.at, jobs=tickets), malformed


def _read_ticket(raw: Raw, *, version: int) -> Ticket:
    if max(version, _version_of(raw)) <= VERSION:
        return _ticket.decode(raw)
    kept = _kept.decode(raw)
    if kept.dispatch is None:
        raise msgspec.ValidationError("Object missing required field `dispatch`")
    return Ticket(
        id=kept.id,
        queue=kept.queue,
        task=kept.task,
        created_at=kept.created_at,
        dispatch=kept.dispatch,
        v=max(kept.v, version),
    )


def _malformed(body: bytes, reason: str, *, at_least: int = 0) -> Malformed:
    version = max(at_least, _version_of(body))
    if version <= VERSION:
        return Malformed(body, reason)
    return Malformed(body, f"wire version {version} is newer than this one's {VERSION}", later=True)


def _version_of(body: bytes | Raw) -> int:
    """1 where nothing is said, or nothing that can be read."""
    try:
        return _versioned.decode(body).v
    except _BAD:
        return 1


def encode_events(events: list[Event]) -> bytes:
    return _encoder.encode(Events(events=events))


def decode_events(body: bytes) -> list[Event]:
    """Events in a message; none where it is not one of ours. Of a later version, what can be read: an event only wakes
    and shows, and whoever needs to be sure looks into the store."""
    try:
        return _events.decode(body).events
    except _BAD:
        return []


def encode_command(command: Command) -> bytes:
    return _encoder.encode(command)


def decode_command(body: bytes) -> Command | Malformed:
    try:
        command = _command.decode(body)
    except _BAD as error:
        return _malformed(body, str(error))
    return command if command.v <= VERSION else _malformed(body, "")


def encode(value: Any) -> bytes:
    return _encoder.encode(value)
