"""JSON Schema (2020-12) of every message on the wire, for producers and consumers in any language.

    submission    callboard.submit     what strangers send: PROTOCOL.md; unknown members are refused. What the schema
                                       allows can still be refused: for its size, or by the task's signature
    reply         to reply_to          the answer to a submission
    bundle        callboard.jobs       jobs on their way to workers: Callboard's own
    events        callboard.events     what became of jobs; readers ignore members that they do not know
    command       callboard.control    between actors: Callboard's own

Events and commands are derived from the structures of wire.py; a test compares the others with theirs, and validates
what is really sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .duration import MAX_SECONDS
from .job_id import MAX_ID_BYTES
from .wire import MAX_DISPATCH, MAX_DURATION, MAX_MOMENT, Command, Events

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def message_schemas() -> dict[str, dict[str, Any]]:
    """By the names above; each can be used alone."""
    return {
        "submission": _whole("A submission", _submission()),
        "reply": _whole("A reply", _reply()),
        "bundle": _whole("A bundle of jobs", _bundle()),
        "events": _derived("Events", Events),
        "command": _derived("A command", Command),
    }


def _whole(title: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "title": title, **schema}


def _derived(title: str, structure: type[msgspec.Struct]) -> dict[str, Any]:
    (root,), parts = msgspec.json.schema_components([structure], ref_template="#/$defs/{name}")
    return _whole(title, {**root, "$defs": parts})


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """null is as good as leaving a member out."""
    return {"anyOf": [schema, {"type": "null"}]}


def _submission() -> dict[str, Any]:
    job = {
        "type": "object",
        "required": ["task"],
        "additionalProperties": False,
        "not": {"required": ["delay", "run_at"], "properties": {"delay": _given(), "run_at": _given()}},
        "properties": {
            "task": {"type": "string", "pattern": "^[A-Za-z0-9_.:<>-]{1,200}$"},
            "args": _or_null({"type": "array"}),
            "kwargs": _or_null({"type": "object"}),
            "id": _or_null({"type": "string", "maxLength": MAX_ID_BYTES, "pattern": "^(?![0-9]+$)[^:]+$"}),
            "queue": _or_null({"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$"}),
            "delay": _or_null({"type": "number", "minimum": 0, "maximum": MAX_SECONDS}),
            "run_at": _or_null({"type": ["number", "string"]}),
            "priority": _or_null({"type": "integer", "minimum": 1, "maximum": 10}),
            "retries": _or_null({"type": "integer", "minimum": 0, "maximum": 1_000_000}),
            "backoff": _or_null({"anyOf": [{"type": "number", "minimum": 0}, _backoff()]}),
            "timeout": _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}),
            "ttl": _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}),
            "deduplication": _or_null(_deduplication()),
            "meta": _or_null({"type": "object"}),
            "depends_on": {"type": "null", "description": "not supported yet"},
        },
    }
    return {
        "anyOf": [{"$ref": "#/$defs/job"}, {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/job"}}],
        "$defs": {"job": job},
    }


def _given() -> dict[str, Any]:
    return {"not": {"type": "null"}}


def _bundle() -> dict[str, Any]:
    moment = {"type": "integer", "minimum": 0, "maximum": MAX_MOMENT, "description": "ms since the epoch"}
    ticket = {
        "type": "object",
        "required": ["dispatch", "id", "queue", "task", "created_at"],
        "properties": {
            "dispatch": {"type": "integer", "minimum": 1, "maximum": MAX_DISPATCH},
            "id": {"type": "string", "minLength": 1, "maxLength": 400},
            "queue": {"type": "string", "minLength": 1, "maxLength": 128},
            "task": {"type": "string", "minLength": 1, "maxLength": 200},
            "created_at": moment,
            "v": {"type": "integer", "minimum": 1, "default": 1},
            "args": {"type": "array"},
            "kwargs": {"type": "object"},
            "priority": {"type": "integer", "minimum": 1, "maximum": 10, "default": 5},
            "expires_at": _or_null(moment),
            "retries": _or_null({"type": "integer", "minimum": 0, "maximum": 1_000_000}),
            "backoff": {"anyOf": [{"type": "number", "minimum": 0}, _backoff()]},
            "timeout": _or_null({"type": "integer", "minimum": 1, "maximum": MAX_DURATION, "description": "ms"}),
            "meta": {"type": "object"},
            "traceparent": _or_null({"type": "string"}),
        },
    }
    return {
        "type": "object",
        "required": ["v", "epoch", "at", "jobs"],
        "properties": {
            "v": {"type": "integer"},
            "epoch": {"type": "string", "description": "of the store that the jobs are in"},
            "at": moment,
            "spare": {"type": "boolean", "default": False, "description": "most likely nobody needs it"},
            "jobs": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/ticket"}},
        },
        "$defs": {"ticket": ticket},
    }


def _backoff() -> dict[str, Any]:
    seconds = {"type": "number", "minimum": 0, "maximum": MAX_SECONDS}
    return {
        "type": "object",
        "required": ["type"],
        "additionalProperties": False,
        "properties": {
            "type": {"enum": ["fixed", "linear", "exponential"]},
            "delay": seconds,
            "factor": {"type": "number"},
            "cap": seconds,
            "jitter": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"const": "full"}]},
        },
    }


def _deduplication() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["id"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "minLength": 1},
            "ttl": _or_null({"type": "number", "exclusiveMinimum": 0}),
            "extend": {"type": "boolean"},
            "replace": {"type": "boolean"},
        },
    }


def _reply() -> dict[str, Any]:
    refusal = {
        "type": "object",
        "required": ["code", "message", "path"],
        "properties": {
            "code": {"type": "string", "description": "a word of PROTOCOL.md's list of refusals"},
            "message": {"type": "string"},
            "path": {"type": "string", "description": "a JSON pointer into the body, or the name of a property"},
        },
    }
    job = {
        "type": "object",
        "required": ["status"],
        "properties": {
            "id": {"type": "string"},
            "status": {"enum": ["created", "existing", "deduplicated", "refused"]},
            "replaced": {"type": "string", "description": "the delayed job whose place this one took"},
            "error": {"$ref": "#/$defs/refusal"},
        },
    }
    return {
        "type": "object",
        "required": ["ok"],
        "properties": {
            "ok": {"type": "boolean"},
            "jobs": {"type": "array", "items": job},
            "error": {"$ref": "#/$defs/refusal"},
            "left_out": {"type": "integer", "description": "jobs at the end that did not fit"},
        },
        "$defs": {"refusal": refusal},
    }
