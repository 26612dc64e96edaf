"""Triggers as users give them, and schedules as they are to become."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ..metadata.schedule import NewSchedule
from .duration import Duration
from .errors import InvalidJob
from .options import CallOptions
from .repeatable_info import info_of
from .schedule_record import Definition, ReadSchedule, encode_definition, first_state, template
from .triggers import Cron, Every, Policy, Trigger, encode_policy, encode_trigger

if TYPE_CHECKING:
    from .app import Callboard

_KINDS = frozenset({"every", "cron", "trigger"})
_TIMING = _KINDS | {"timezone", "start", "end", "jitter"}
_OPTIONS = ("retries", "ttl", "timeout", "priority", "backoff", "meta")  # of CallOptions, and of Definition
_OTHERS = frozenset({"task_id", "args", "kwargs", "policy"})


def make_trigger(
    *,
    every: Duration | None = None,
    cron: str | None = None,
    trigger: Trigger | None = None,
    timezone: str = "UTC",
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: Duration = 0,
) -> Trigger:
    """Of the one that is given. `timezone` is that of `cron`. Raises InvalidJob, TriggerInvalid."""
    if sum(given is not None for given in (every, cron, trigger)) != 1:
        raise InvalidJob(f"give one of every ({every!r}), cron ({cron!r}) and trigger ({trigger!r:.100})")
    if trigger is not None:
        if start is not None or end is not None or jitter:
            raise InvalidJob("a trigger has start, end and jitter of its own: give them there")
        return trigger
    if cron is not None:
        return Cron(cron, zone=timezone, start=start, end=end, jitter=jitter)
    assert every is not None
    return Every(every, start=start, end=end, jitter=jitter)


def members(read: ReadSchedule) -> dict[str, Any]:
    """What `changed` may change, as it is."""
    info = info_of(read)
    window = {"start": read.given.start, "end": read.given.end, "jitter": read.given.jitter_ms / 1000 or None}
    timing = {name: str(value) for name, value in window.items() if value is not None}
    return {**info.job_def, **timing, "policy": info.policy}


def changed(app: Callboard, read: ReadSchedule, changes: Mapping[str, Any]) -> NewSchedule:
    """The schedule with these changes, to be made at the revision that was read. Raises InvalidJob, TriggerInvalid."""
    known = _TIMING | {*_OPTIONS} | _OTHERS
    unknown = sorted(str(name) for name in changes if name not in known)
    if unknown:
        raise InvalidJob(f"unknown member {unknown[0]!r}; known: {', '.join(sorted(known))}")
    trigger = _changed_trigger(read.given, {name: changes[name] for name in changes if name in _TIMING})
    state, next_run = first_state(trigger, id=read.record.id, now=app.clock.now(), before=read.state)
    return NewSchedule(
        id=read.record.id,
        queue=read.record.queue,
        trigger=read.record.trigger if trigger == read.given else encode_trigger(trigger),
        definition=_changed_definition(app, read, changes),
        state=state,
        next_run=next_run,
        revision=read.record.revision,
    )


def _changed_definition(app: Callboard, read: ReadSchedule, changes: Mapping[str, Any]) -> bytes:
    old = read.definition
    options = CallOptions.parse(**{name: changes[name] for name in _OPTIONS if name in changes})
    job = app.new_job(
        changes.get("task_id", old.task),
        changes.get("args", msgspec.json.decode(old.args)),
        changes.get("kwargs", msgspec.json.decode(old.kwargs)),
        options,
        queue=read.record.queue,
    )
    policy = changes.get("policy", read.policy)
    if not isinstance(policy, Policy):
        raise InvalidJob(f"policy must be a Policy, not {policy!r:.100}")
    ttl = None if job.expires_at is None else job.expires_at - job.created_at
    made = encode_definition(template(job), ttl=ttl, policy=encode_policy(policy))
    kept = {name: getattr(old, name) for name in _OPTIONS if name not in changes}
    return msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(made, type=Definition), **kept))


def _changed_trigger(given: Trigger, changes: Mapping[str, Any]) -> Trigger:
    if not changes:
        return given
    if changes.get("trigger") is not None:
        return make_trigger(**changes)
    window = {"start": given.start, "end": given.end, "jitter": given.jitter_ms / 1000}
    kinds = {name: changes[name] for name in _KINDS if changes.get(name) is not None}
    if not kinds:
        match given:
            case Every():
                kinds = {"every": given.interval_ms / 1000}
            case Cron() if given.expression is not None:
                kinds = {"cron": given.expression}
            case _:
                raise InvalidJob(f"{', '.join(changes)}: this schedule has a trigger of its own; give a whole trigger")
    zone = {"timezone": given.zone} if isinstance(given, Cron) else {}
    rest = {name: value for name, value in changes.items() if name not in _KINDS}
    return make_trigger(**{**window, **zone, **kinds, **rest})
