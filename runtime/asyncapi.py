"""The wiring as an AsyncAPI 3.0 document: every exchange with its messages, and what each actor sends and receives.

Drawn from what the actors declare (wiring.py) and from the schemas of the messages (message_schemas.py). Operations are
named `<actor>.<send | receive>.<exchange>`; `stranger.send.submit` is the one for programs that are no part
of Callboard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from .message_schemas import message_schemas
from .wiring import Bound, Wiring

SUBMIT = "submit"
# The messages of each exchange; those of `dead` are what was refused: bytes of any kind.
_MESSAGES = {
    "submit": ("submission",),
    "jobs": ("bundle",),
    "events": ("events",),
    "control": ("command",),
    "dead": ("letter",),
}
_SUMMARIES = {
    "submission": "Jobs from a producer in any language: one object, or an array of them",
    "reply": "What became of a submission, to its reply_to",
    "bundle": "Jobs on their way to a worker",
    "events": "What became of jobs",
    "command": "From actor to actor",
    "letter": "What was refused, as it came, with its reason in the headers",
}


def as_asyncapi(wiring: Wiring, *, namespace: str = "callboard") -> dict[str, Any]:
    """The document, in JSON's types."""
    prefix = f"{namespace}."
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for exchange in wiring.exchanges:
        short = exchange.name.removeprefix(prefix)
        channels[short] = _channel(exchange.name, exchange.type, _MESSAGES[short])
        for publisher in exchange.publishers:
            operations[f"{publisher}.send.{short}"] = _operation("send", short)
        for reader, keys in _readers(exchange.queues).items():
            operation = _operation("receive", short)
            operation["description"] = f"Routing keys: {', '.join(sorted(keys))}"
            operations[f"{reader}.receive.{short}"] = operation
    channels["replies"] = {
        "address": None,
        "description": "The queue that a submission names in reply_to: direct reply-to, or a queue named by RabbitMQ.",
        "messages": {"reply": {"$ref": "#/components/messages/reply"}},
    }
    operations["stranger.send.submit"] = {
        **_operation("send", SUBMIT),
        "description": "The routing key names the job queue.",
        "reply": {
            "address": {"location": "$message.header#/reply_to", "description": "AMQP's reply_to"},
            "channel": {"$ref": "#/channels/replies"},
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Callboard",
            "version": version("callboard"),
            "description": "Background jobs and schedules on RabbitMQ. PROTOCOL.md tells what the schemas cannot.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": dict(sorted(operations.items())),
        "components": {"messages": _messages()},
    }


def _channel(exchange: str, kind: str, messages: tuple[str, ...]) -> dict[str, Any]:
    return {
        "address": exchange,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": kind, "durable": True, "autoDelete": False, "vhost": "/"},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in _MESSAGES[channel]],
    }


def _readers(queues: Iterable[Bound]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for bound in queues:
        for reader in bound.readers:
            found.setdefault(reader, set()).update(bound.routing_keys)
    return found


def _messages() -> dict[str, Any]:
    schemas: dict[str, Any] = {
        name: {"schemaFormat": "application/schema+json;version=draft-07", "schema": _inlined(schema)}
        for name, schema in message_schemas().items()
    }
    described = {
        name: {"name": name, "summary": _SUMMARIES[name], "contentType": "application/json", "payload": schema}
        for name, schema in schemas.items()
    }
    described["letter"] = {
        "name": "letter",
        "summary": _SUMMARIES["letter"],
        "contentType": "application/octet-stream",
        "payload": {"type": ["object", "array", "string", "number", "boolean", "null"]},
    }
    return described


def _inlined(schema: dict[str, Any]) -> Any:
    """The schema without `$defs`: a reference in a document of AsyncAPI would be looked for in that document. None of
    the schemas refers to itself."""
    parts = schema.get("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(one) for one in value]
        if not isinstance(value, dict):
            return value
        if (reference := value.get("$ref")) is not None:
            found = re.fullmatch(r"#/\$defs/(\w+)", reference)
            assert found is not None, reference
            return resolve(parts[found[1]])
        return {name: resolve(one) for name, one in value.items() if name not in ("$defs", "$schema")}

    return resolve(schema)
