"""Triggers and policies as JSON, for schedules that are kept: bytes to the store, values to everybody else.

    {"version": 1, "engine": "croniter 7.0.0, calendar 1", "trigger": {"type": "cron", "expression": "0 9 * * *", ...}}

Equal triggers have equal bytes, so that a schedule's trigger is known to be unchanged by comparing them. The engine's
stamp is beside the trigger: occurrences that were computed under another stamp are to be computed anew.
Moments are ISO 8601 in UTC, durations seconds; members that have their default are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from .at import At
from .combined import MAX_LEVELS, MAX_PARTS, AllOf, AnyOf
from .contract import Trigger, TriggerInvalid
from .cron import CRONITER, Cron
from .daylight import Daylight
from .every import MIN_INTERVAL_MS, Every
from .named_fields import FIELD_NAMES
from .policy import Policy

VERSION = 1
MAX_BYTES = 32_768
STAMP = f"{CRONITER.stamp}, calendar 1"  # raise the number when wall_calendar or daylight answers differently


class StoredTrigger(Struct, frozen=True, kw_only=True):
    """`current`: whether the engine that computed the schedule's next occurrence is the one of this process."""

    trigger: Trigger
    engine: str

    @property
    def current(self) -> bool:
        return self.engine == STAMP


def encode_trigger(trigger: Trigger) -> bytes:
    """Raises TriggerInvalid for a trigger that is not of the kinds of this package, or has an interval of less than a
    second: such schedules are not stored."""
    return msgspec.json.encode({"version": VERSION, "engine": STAMP, "trigger": trigger_to_json(trigger)})


def decode_trigger(data: bytes) -> StoredTrigger:
    """Raises TriggerInvalid, in bounded time, for what `encode_trigger` has not made: whatever stands in a store."""
    form = _decoded(data)
    _only(form, {"version", "engine", "trigger"}, "a stored trigger")
    engine = form.get("engine")
    if not isinstance(engine, str):
        raise TriggerInvalid(member="engine", value=engine, reason="wants a string")
    return StoredTrigger(trigger=trigger_from_json(form.get("trigger")), engine=engine)


def encode_policy(policy: Policy) -> bytes:
    return msgspec.json.encode({"version": VERSION, **policy_members(policy)})


def decode_policy(data: bytes) -> Policy:
    """Raises TriggerInvalid for what `encode_policy` has not made."""
    form = _decoded(data)
    _only(form, {"version", *POLICY_MEMBERS}, "a stored policy")
    return Policy.create(**{name: value for name, value in form.items() if name != "version"})


def trigger_to_json(trigger: Trigger) -> dict[str, Any]:
    """As `encode_trigger`, without version and stamp."""
    match trigger:
        case Every():
            if trigger.interval_ms < MIN_INTERVAL_MS:
                reason = "is shorter than 1 s, which a stored schedule can't be"
                raise TriggerInvalid(member="interval", value=trigger.interval_ms / 1000, reason=reason)
            return {"type": "every", "interval": trigger.interval_ms / 1000, **_window(trigger)}
        case Cron():
            form: dict[str, Any] = {"type": "cron"}
            form |= dict(trigger.fields) if trigger.expression is None else {"expression": trigger.expression}
            daylight = {"missing": trigger.daylight.missing.value, "repeated": trigger.daylight.repeated.value}
            return {**form, "zone": trigger.zone, "daylight": daylight, **_window(trigger)}
        case At():
            return {"type": "at", "moment": trigger.moment.isoformat(), **_jitter(trigger)}
        case AnyOf() | AllOf():
            kind = "any_of" if isinstance(trigger, AnyOf) else "all_of"
            return {"type": kind, "parts": [trigger_to_json(part) for part in trigger.parts], **_window(trigger)}
    raise TriggerInvalid(member="trigger", value=trigger, reason="has no JSON form; use the kinds of this package")


def trigger_from_json(form: object, level: int = 1) -> Trigger:
    """The trigger of which `trigger_to_json` made `form`. Raises TriggerInvalid."""
    if not isinstance(form, Mapping):
        raise TriggerInvalid(member="trigger", value=form, reason="wants an object")
    kind = form.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise TriggerInvalid(member="trigger.type", value=kind, reason=f"is not one of {', '.join(_KINDS)}")
    members, make = _KINDS[kind]
    _only(form, members | {"type"}, kind)
    return make(form, level)


def _every(form: Mapping[str, Any], level: int) -> Trigger:
    return Every(_needed(form, "interval"), **_window_from(form))


def _cron(form: Mapping[str, Any], level: int) -> Trigger:
    named = {name: form[name] for name in FIELD_NAMES if name in form}
    given = form.get("daylight", {})
    if not isinstance(given, Mapping):
        raise TriggerInvalid(member="daylight", value=given, reason="wants an object")
    _only(given, {"missing", "repeated"}, "daylight")
    daylight = Daylight.create(**given)
    zone = form.get("zone", "UTC")
    return Cron(form.get("expression"), zone=zone, daylight=daylight, **named, **_window_from(form))


def _at(form: Mapping[str, Any], level: int) -> Trigger:
    return At(_moment(_needed(form, "moment"), "moment"), jitter=form.get("jitter", 0))


def _combined(form: Mapping[str, Any], level: int) -> Trigger:
    parts = form.get("parts")
    if not isinstance(parts, list) or len(parts) > MAX_PARTS or level >= MAX_LEVELS:
        reason = f"wants a list of at most {MAX_PARTS} triggers, on at most {MAX_LEVELS} levels"
        raise TriggerInvalid(member="parts", value=parts, reason=reason)
    kind = AnyOf if form["type"] == "any_of" else AllOf
    return kind(*(trigger_from_json(part, level + 1) for part in parts), **_window_from(form))


_WINDOW = frozenset({"start", "end", "jitter"})
_KINDS: dict[str, tuple[frozenset[str], Callable[[Mapping[str, Any], int], Trigger]]] = {
    "every": (_WINDOW | {"interval"}, _every),
    "cron": (_WINDOW | {"expression", "zone", "daylight", *FIELD_NAMES}, _cron),
    "at": (frozenset({"moment", "jitter"}), _at),
    "any_of": (_WINDOW | {"parts"}, _combined),
    "all_of": (_WINDOW | {"parts"}, _combined),
}
POLICY_MEMBERS = ("misfire_grace", "coalesce", "catch_up", "max_instances", "overlap", "max_queued")


def policy_members(policy: Policy) -> dict[str, Any]:
    """As `Policy.create` takes them."""
    grace = policy.misfire_grace_ms
    values = (
        None if grace is None else grace / 1000,
        policy.coalesce,
        policy.catch_up,
        policy.max_instances,
        policy.overlap.value,
        policy.max_queued,
    )
    return dict(zip(POLICY_MEMBERS, values, strict=True))


def _jitter(trigger: Trigger) -> dict[str, Any]:
    return {"jitter": trigger.jitter_ms / 1000} if trigger.jitter_ms else {}


def _window(trigger: Trigger) -> dict[str, Any]:
    start = {} if trigger.start is None else {"start": trigger.start.isoformat()}
    end = {} if trigger.end is None else {"end": trigger.end.isoformat()}
    return {**start, **end, **_jitter(trigger)}


def _window_from(form: Mapping[str, Any]) -> dict[str, Any]:
    moments = {name: _moment(form[name], name) for name in ("start", "end") if form.get(name) is not None}
    return {**moments, "jitter": form.get("jitter", 0)}


def _moment(value: object, member: str) -> datetime:
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    raise TriggerInvalid(member=member, value=value, reason="is not a moment as ISO 8601 has it")


def _needed(form: Mapping[str, Any], member: str) -> Any:
    if member not in form:
        raise TriggerInvalid(member=member, value=None, reason="is needed")
    return form[member]


def _only(form: Mapping[str, Any], members: frozenset[str] | set[str], what: str) -> None:
    for member in form:
        if member not in members:
            reason = f"is not a member of {what}, which has {', '.join(sorted(members))}"
            raise TriggerInvalid(member=str(member)[:80], value=form[member], reason=reason)


def _decoded(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise TriggerInvalid(member="schedule", value=data, reason=f"is longer than {MAX_BYTES} bytes")
    try:
        form = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TriggerInvalid(member="schedule", value=data, reason=f"is not JSON: {error}") from None
    if not isinstance(form, dict):
        raise TriggerInvalid(member="schedule", value=form, reason="wants an object")
    if form.get("version") != VERSION:
        reason = f"is not {VERSION}, the only one known"
        raise TriggerInvalid(member="version", value=form.get("version"), reason=reason)
    return form
