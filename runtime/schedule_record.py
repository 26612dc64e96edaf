"""Between the bytes that a store keeps of a schedule and the values that schedulers and tools work with.

    trigger      triggers/codec.py: as the user gave it, so that equal bytes are an equal trigger
    definition   {"version": 1, "task": ..., "args": [...], "kwargs": {...}, "priority": 5, ..., "policy": {...}}
    state        {"version": 1, "engine": ..., "anchor": ..., "expected": ..., "history": [...], ...}

A schedule's jobs are made of these bytes alone, so a scheduler needs nothing of the app whose tasks it schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ..metadata.job import NewJob
from ..metadata.schedule import NewSchedule, Schedule
from .errors import CallboardError, InvalidJob
from .job_id import MAX_ID_BYTES
from .triggers import STAMP, At, Fate, Policy, StoredTrigger, Trigger, TriggerInvalid, fires_at
from .triggers import decode_policy as _decode_policy
from .triggers import decode_trigger as _decode_trigger
from .triggers.grid import from_ms, to_ms
from .wire import ABSENT, NO_ARGS, NO_KWARGS, Body, decode_body, encode_body

VERSION = 1
MAX_SCHEDULE_ID_BYTES = MAX_ID_BYTES - 56  # room for what the ids of its jobs add
MAX_HISTORY = 20
MANUAL = "manual-"
CACHED = 4096


class ScheduleUnreadable(CallboardError):
    """What is stored of a schedule is not what this version writes: damaged, or made by a newer one."""

    def __init__(self, schedule: Schedule, reason: str) -> None:
        super().__init__(f"schedule {schedule.id!r} of queue {schedule.queue!r} can't be read: {reason}")


class Definition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to enqueue. `ttl` and `timeout` in ms; `policy` as triggers/codec.py has it; `name` is for people."""

    version: int
    task: str
    priority: int
    policy: Raw
    args: Raw = NO_ARGS
    kwargs: Raw = NO_KWARGS
    retries: int | None = None
    backoff: Raw = ABSENT
    timeout: int | None = None
    ttl: int | None = None
    meta: Raw = ABSENT
    name: str | None = None


class Happening(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an occurrence, or of `count` of them from `occurrence` on; `exact` false: of at least so many."""

    at: int
    fate: Fate
    occurrence: int
    count: int = 1
    exact: bool = True


class ScheduleState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Moments in ms.

    engine    the stamp of the engine that computed `expected`
    anchor    the moment on which a trigger without a start hangs
    expected  the occurrence that is next; the schedule's next_run follows from it
    waiting   occurrences that wait for an end of those in `running`; both are empty without `max_instances`
    totals    how many occurrences met each fate
    history   the newest happenings, the newest last
    """

    version: int
    engine: str
    anchor: int
    expected: int | None
    waiting: tuple[int, ...] = ()
    running: tuple[int, ...] = ()
    totals: dict[str, int] = {}
    history: tuple[Happening, ...] = ()


class ReadSchedule(Struct, frozen=True, kw_only=True):
    """A schedule whose bytes were read. `trigger` is anchored, `given` as the user gave it."""

    record: Schedule
    given: Trigger
    trigger: Trigger
    definition: Definition
    policy: Policy
    state: ScheduleState


def check_schedule_id(value: object) -> str:
    """Printable text of at most 200 bytes. Raises InvalidJob, TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"id must be a string, not {value!r:.100}")
    if not value or not value.isprintable() or len(value.encode(errors="replace")) > MAX_SCHEDULE_ID_BYTES:
        reason = f"must be 1 to {MAX_SCHEDULE_ID_BYTES} bytes of printable text"
        raise InvalidJob(f"id of a schedule {reason}, not {value!r:.100}")
    return value


def read_schedule(record: Schedule) -> ReadSchedule:
    """Raises ScheduleUnreadable."""
    try:
        given = _trigger(record.trigger).trigger
        definition = _definition(record.definition)
        policy = _policy(bytes(definition.policy))
        state = msgspec.json.decode(record.state, type=ScheduleState)
    except (msgspec.DecodeError, TriggerInvalid, UnicodeDecodeError, RecursionError) as error:
        raise ScheduleUnreadable(record, str(error)) from error
    for name, version in (("definition", definition.version), ("state", state.version)):
        if version > VERSION:
            raise ScheduleUnreadable(record, f"the version of its {name} is {version}, this one reads {VERSION}")
    trigger = given.anchored(from_ms(state.anchor))
    return ReadSchedule(record=record, given=given, trigger=trigger, definition=definition, policy=policy, state=state)


def read_new(new: NewSchedule) -> ReadSchedule:
    """A schedule as it would be read once it is made."""
    return read_schedule(
        Schedule(
            id=new.id,
            queue=new.queue,
            trigger=new.trigger,
            definition=new.definition,
            state=new.state,
            next_run=new.next_run,
            created_at=0,
            updated_at=0,
        )
    )


def encode_definition(body: Body, *, ttl: int | None, policy: bytes, name: str | None = None) -> bytes:
    """Of the body of a job as the schedule is to make them."""
    return msgspec.json.encode(
        Definition(
            version=VERSION,
            task=body.task,
            args=body.args,
            kwargs=body.kwargs,
            priority=body.priority,
            retries=body.retries,
            backoff=body.backoff,
            timeout=body.timeout,
            ttl=ttl,
            meta=body.meta,
            policy=Raw(policy),
            name=name,
        )
    )


def encode_state(state: ScheduleState) -> bytes:
    return msgspec.json.encode(state)


def first_state(given: Trigger, *, id: str, now: int, since: int | None = None) -> tuple[bytes, int | None]:
    """State and next_run of a schedule that begins, or begins anew, at `now`. Occurrences from `since` on count, in
    place of those later than `now`. A trigger's only moment is late, not over, once it has passed: its fate is for the
    policy to say."""
    trigger = given.anchored(from_ms(now))
    if since is None and isinstance(given, At):
        since = to_ms(given.moment)
    state = ScheduleState(
        version=VERSION,
        engine=STAMP,
        anchor=now,
        expected=_ms(trigger.next_after(from_ms(now if since is None else since - 1))),
    )
    return encode_state(state), run_at(trigger, state.expected, id)


def moved_to(read: ReadSchedule, *, queue: str, task: str) -> NewSchedule:
    """The same schedule for another queue, which is yet to be resumed."""
    return NewSchedule(
        id=read.record.id,
        queue=queue,
        trigger=read.record.trigger,
        definition=msgspec.json.encode(msgspec.structs.replace(read.definition, task=task)),
        state=read.record.state,
        next_run=None,
    )


def succeeding(new: NewSchedule, before: ScheduleState, *, now: int) -> NewSchedule:
    """`new`, which begins anew, with the past of the schedule whose place it takes."""
    begun = msgspec.json.decode(new.state, type=ScheduleState)
    ended = without_waiting(before, now=now)
    state = msgspec.structs.replace(begun, running=ended.running, totals=ended.totals, history=ended.history)
    return msgspec.structs.replace(new, state=encode_state(state))


def resumed_state(read: ReadSchedule, *, now: int) -> tuple[bytes, int | None]:
    """State and next_run of a schedule that goes on after a pause: on its old grid, from the next occurrence. An only
    moment that came during the pause is late, not over."""
    expected = read.state.expected
    if not isinstance(read.given, At):
        expected = _ms(read.trigger.next_after(from_ms(now)))
    state = msgspec.structs.replace(without_waiting(read.state, now=now), engine=STAMP, expected=expected)
    return encode_state(state), run_at(read.trigger, expected, read.record.id)


def without_waiting(state: ScheduleState, *, now: int) -> ScheduleState:
    """Occurrences that wait for the end of others are skipped."""
    skipped = [Happening(at=now, fate=Fate.SKIPPED, occurrence=occurrence) for occurrence in state.waiting]
    return msgspec.structs.replace(state, waiting=(), **past(state, skipped))


def past(state: ScheduleState, happenings: Sequence[Happening]) -> dict[str, Any]:
    """The `totals` and `history` with these added."""
    totals = dict(state.totals)
    for happening in happenings:
        totals[happening.fate.value] = totals.get(happening.fate.value, 0) + happening.count
    return {"totals": totals, "history": (*state.history, *happenings)[-MAX_HISTORY:]}


def run_at(trigger: Trigger, occurrence: int | None, id: str) -> int | None:
    """When an occurrence is to run: its own time and its part of the jitter."""
    return None if occurrence is None else to_ms(fires_at(trigger, from_ms(occurrence), id))


def occurrence_id(schedule_id: str, occurrence: int) -> str:
    """<schedule id>@20261122T090000Z, the milliseconds only where there are some."""
    return f"{schedule_id}@{stamp(occurrence)}"


def stamp(occurrence: int) -> str:
    moment = from_ms(occurrence)
    fraction = f".{occurrence % 1000:03}" if occurrence % 1000 else ""
    return f"{moment:%Y%m%dT%H%M%S}{fraction}Z"


def moment_of(text: str) -> datetime | None:
    """The moment that `stamp` wrote; None: it is no stamp."""
    for form in ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S.%fZ"):
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=UTC)
    return None


def occurrence_job(read: ReadSchedule, occurrence: int, *, now: int) -> NewJob:
    return _job(read, occurrence_id(read.record.id, occurrence), occurrence, now)


def manual_job(read: ReadSchedule, *, token: str, now: int) -> NewJob:
    """A run that no occurrence asked for; `token` sets it apart from others."""
    return _job(read, f"{read.record.id}@{MANUAL}{token}", now, now, manual=True)


def _job(read: ReadSchedule, id: str, occurrence: int, now: int, *, manual: bool = False) -> NewJob:
    definition = read.definition
    origin = {"id": read.record.id, "occurrence": from_ms(occurrence).isoformat()}
    meta: dict[str, Any] = {} if not definition.meta else msgspec.json.decode(definition.meta)
    meta["schedule"] = {**origin, "manual": True} if manual else origin
    body = Body(
        id=id,
        queue=read.record.queue,
        task=definition.task,
        created_at=now,
        args=definition.args,
        kwargs=definition.kwargs,
        priority=definition.priority,
        expires_at=None if definition.ttl is None else now + definition.ttl,
        retries=definition.retries,
        backoff=definition.backoff,
        timeout=definition.timeout,
        meta=Raw(msgspec.json.encode(meta)),
    )
    return NewJob(
        id=id,
        queue=body.queue,
        task=body.task,
        payload=encode_body(body),
        priority=body.priority,
        created_at=now,
        expires_at=body.expires_at,
    )


def template(job: NewJob) -> Body:
    """The body of a job that was made to see what a schedule is to make."""
    return decode_body(job.payload)


def same_trigger(record: Schedule, trigger: Trigger) -> bool:
    """Whether a schedule has this trigger, be it stored under the stamp of another engine."""
    try:
        return _trigger(record.trigger).trigger == trigger
    except TriggerInvalid:
        return False


def continued(new: NewSchedule, read: ReadSchedule, *, now: int) -> NewSchedule:
    """`new`, which has the trigger of `read` under another engine's stamp: it goes on on its grid, and what is overdue
    stays due."""
    expected = read.state.expected
    if expected is None or expected > now:
        expected = _ms(read.trigger.next_after(from_ms(now)))
    state = msgspec.structs.replace(read.state, engine=STAMP, expected=expected)
    next_run = run_at(read.trigger, expected, new.id)
    return msgspec.structs.replace(new, state=encode_state(state), next_run=next_run)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else to_ms(moment)


# The same few bytes are read again with every occurrence, and parsing a crontab costs more than all the rest.


@lru_cache(CACHED)
def _trigger(data: bytes) -> StoredTrigger:
    return _decode_trigger(data)


@lru_cache(CACHED)
def _policy(data: bytes) -> Policy:
    return _decode_policy(data)


@lru_cache(CACHED)
def _definition(data: bytes) -> Definition:
    return msgspec.json.decode(data, type=Definition)
