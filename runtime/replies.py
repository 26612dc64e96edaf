"""What a producer is told of its submission: one JSON message to `reply_to`, under its `correlation_id`.

    {"ok": true, "jobs": [{"id": "...", "status": "created"}]}            created, existing, deduplicated
    {"ok": false, "error": {"code": "...", "message": "...", "path": "..."}}
    {"ok": false, "error": {...}, "jobs": [{...}, {"status": "refused", "error": {...}}]}    an array, some refused

A reply goes through the default exchange, so `reply_to` is the name of a queue, and a stranger chose it: only the names
that RabbitMQ makes up for clients are allowed (direct reply-to, and queues declared without a name), and prefixes that
the settings name. Replies are sent at most once, and vanish where nobody waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..brokers.message import Delivery, Message
from ..metadata.contract import Admission, Enqueued
from .settings import Settings
from .strict_json import MAX_PATH, Refusal
from .submission import brief
from .wire import encode

MADE_BY_RABBITMQ = ("amq.rabbitmq.reply-to.", "amq.gen-")
MAX_REPLY = 64 * 1024  # bytes; beyond it the jobs at the end of an array are left out

_STATUS = {
    Admission.CREATED: "created",
    Admission.REPLACED: "created",
    Admission.EXISTING: "existing",
    Admission.DEDUPLICATED: "deduplicated",
}


def may_reply(reply_to: str, settings: Settings) -> bool:
    """Whether a stranger may have something published to the queue of this name."""
    if reply_to.startswith(f"{settings.namespace}."):
        return False
    return reply_to.startswith(MADE_BY_RABBITMQ + settings.intake_reply_prefixes)


def reply(delivery: Delivery, outcomes: Sequence[Enqueued | Refusal], *, array: bool) -> Message:
    """`outcomes`: one for each element of an array, in order, else the only one."""
    told: dict[str, Any] = {"ok": True}
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    if refusals:
        told = {"ok": False, "error": _error(refusals[0])}
    if array or not refusals:
        told["jobs"] = [_job(outcome) for outcome in outcomes]
    return Message(
        exchange="",
        routing_key=delivery.reply_to or "",
        body=_within_limit(told),
        correlation_id=delivery.correlation_id,
        persistent=False,
        mandatory=False,
    )


def _job(outcome: Enqueued | Refusal) -> dict[str, Any]:
    if isinstance(outcome, Refusal):
        return {"status": "refused", "error": _error(outcome)}
    told = {"id": outcome.id, "status": _STATUS[outcome.admission]}
    return told if outcome.replaced is None else {**told, "replaced": outcome.replaced}


def _error(refusal: Refusal) -> dict[str, str]:
    return {"code": refusal.code, "message": brief(refusal.message), "path": refusal.path[:MAX_PATH]}


def _within_limit(told: dict[str, Any]) -> bytes:
    encoded = encode(told)
    all_jobs = jobs = told.get("jobs", [])
    while len(encoded) > MAX_REPLY and jobs:  # each turn halves what is told of the jobs; the rest is short
        jobs = jobs[: len(jobs) // 2]
        encoded = encode({**told, "jobs": jobs, "left_out": len(all_jobs) - len(jobs)})
    return encoded
