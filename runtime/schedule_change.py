"""Triggers as users give them, and schedules as they are to become."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from ..metadata.schedule import NewSchedule
from .duration import Duration
from .errors import InvalidJob
from .json_value import to_plain
from .options import CallOptions
from .repeatable_info import info_of
from .retry import Backoff
from .schedule_record import Definition, ReadSchedule, encode_definition, first_state, read_new, template
from .triggers import AllOf, AnyOf, At, Cron, Every, Policy, Trigger, encode_policy, encode_trigger
from .triggers.codec import POLICY_MEMBERS, policy_members, trigger_to_json
from .triggers.contract import checked_moment

if TYPE_CHECKING:
    from .app import Callboard

_KINDS = frozenset({"every", "cron", "trigger"})
_TIMING = _KINDS | {"timezone", "start", "end", "jitter"}
_OPTIONS = ("retries", "ttl", "timeout", "priority", "backoff", "meta")  # of CallOptions, and of Definition
_OTHERS = frozenset({"task_id", "args", "kwargs", "name", "policy", *POLICY_MEMBERS})


def make_trigger(
    *,
    every: Duration | None = None,
    cron: str | None = None,
    trigger: Trigger | None = None,
    timezone: str = "UTC",
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: Duration = 0,
    local: bool = False,
) -> Trigger:
    """Of the one that is given. `timezone` is that of `cron`; `local`: it will not be stored, so that `every` may be
    shorter than a second. Raises InvalidJob, TriggerInvalid."""
    if sum(given is not None for given in (every, cron, trigger)) != 1:
        raise InvalidJob(f"give one of every ({every!r}), cron ({cron!r}) and trigger ({trigger!r:.100})")
    if trigger is not None:
        if start is not None or end is not None or jitter:
            raise InvalidJob("a trigger has start, end and jitter of its own: give them there")
        return trigger
    if cron is not None:
        return Cron(cron, zone=timezone, start=start, end=end, jitter=jitter)
    assert every is not None
    return Every(every, start=start, end=end, jitter=jitter, shortest=0 if local else 1)


def members(read: ReadSchedule) -> dict[str, Any]:
    """What `changed` may change, as it is."""
    info = info_of(read)
    given = read.given
    window: dict[str, Any] = {"jitter": given.jitter_ms / 1000 or None}
    if not isinstance(given, At):
        window |= {name: None if moment is None else str(moment) for name, moment in _ends(given).items()}
    told = {name: value for name, value in window.items() if value is not None}
    named = {} if read.definition.name is None else {"name": read.definition.name}
    return {**info.job_def, **told, **named, **info.policy}


def difference(read: ReadSchedule, new: NewSchedule) -> dict[str, tuple[Any, Any]]:
    """Members that `new` changes, as {member: (before, after)}."""
    before, after = members(read), members(read_new(new))
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def changed(app: Callboard, read: ReadSchedule, changes: Mapping[str, Any]) -> NewSchedule:
    """The schedule with these changes, to be made at the revision that was read. Raises InvalidJob, TriggerInvalid."""
    known = _TIMING | {*_OPTIONS} | _OTHERS
    unknown = sorted(str(name) for name in changes if name not in known)
    if unknown:
        raise InvalidJob(f"unknown member {unknown[0]!r}; known: {', '.join(sorted(known))}")
    trigger = _changed_trigger(read.given, {name: changes[name] for name in changes if name in _TIMING})
    state, next_run = first_state(trigger, id=read.record.id, now=app.clock.now())
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
    ttl = None if job.expires_at is None else job.expires_at - job.created_at
    policy = encode_policy(_changed_policy(read.policy, changes))
    made = encode_definition(template(job), ttl=ttl, policy=policy, name=changes.get("name", old.name))
    kept = {name: getattr(old, name) for name in _OPTIONS if name not in changes}
    return msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(made, type=Definition), **kept))


def _changed_policy(policy: Policy, changes: Mapping[str, Any]) -> Policy:
    whole = changes.get("policy", policy)
    if not isinstance(whole, Policy):
        raise InvalidJob(f"policy must be a Policy, not {whole!r:.100}")
    given = {name: changes[name] for name in POLICY_MEMBERS if name in changes}
    return Policy.create(**{**policy_members(whole), **given}) if given else whole


def _ends(trigger: Trigger) -> dict[str, datetime | None]:
    return {"start": trigger.start, "end": trigger.end}


def _changed_trigger(given: Trigger, changes: Mapping[str, Any]) -> Trigger:
    if not changes:
        return given
    if changes.get("trigger") is not None:
        return make_trigger(**changes)
    kinds = {name: changes[name] for name in ("every", "cron") if changes.get(name) is not None}
    if len(kinds) > 1:
        raise InvalidJob(f"give one of every ({kinds['every']!r}) and cron ({kinds['cron']!r})")
    rest = {name: value for name, value in changes.items() if name not in _KINDS}
    before: dict[str, Any] = {"jitter": given.jitter_ms / 1000}
    if not isinstance(given, At):
        before |= _ends(given)
    if not isinstance(given, Cron) and "cron" not in kinds and "timezone" in rest:
        raise InvalidJob(f"timezone={rest['timezone']!r:.100}: only cron has one")
    match given:
        case Cron() if "every" not in kinds:
            zone = rest.pop("timezone", given.zone)
            fields: dict[str, Any] = {} if "cron" in kinds else dict(given.fields)
            expression = kinds.get("cron", given.expression)
            return Cron(expression, zone=zone, daylight=given.daylight, **fields, **{**before, **rest})
        case _ if kinds:
            return make_trigger(**{**before, **kinds, **rest})
        case Every():
            return Every(given.interval_ms / 1000, **{**before, **rest})
        case AnyOf() | AllOf():
            return type(given)(*given.parts, **{**before, **rest})
    raise InvalidJob(f"{', '.join(changes)}: this schedule occurs once; give it a whole trigger")


def written(schedule: Mapping[str, Any]) -> dict[str, object]:
    """Members as they come back from a store, so that equal ones are equal: durations in seconds, moments and triggers
    and policies as JSON; without what says nothing."""
    policy = schedule.get("policy")
    plain = {**schedule, **(policy_members(policy) if isinstance(policy, Policy) else policy or {})}
    return {str(name): _plain(name, value) for name, value in plain.items() if value is not None and name != "policy"}


def _plain(name: str, value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case datetime():
            return str(checked_moment(value, name))
        case Backoff():
            return msgspec.json.decode(msgspec.json.encode(value))
        case str() | int() | float() | bool():
            return value
        case Mapping() | list() | tuple():
            return to_plain(value, name)
        case _ if isinstance(value, Trigger):
            return trigger_to_json(value)
    return value
