"""What arrives on `callboard.submit`: jobs of producers in any language, of whom nothing is believed.

    read_submission(delivery) -> Submission: for each job of the body, in order, a NewJob or a Refusal

A body is one object or an array of them; each element is judged alone. Refused as a whole is what cannot be read: see
strict_json.py, and properties that say that the body is no JSON or that could not be decoded. PROTOCOL.md lists the
members and the codes of refusals.

The queue is the routing key. `queue` in the body must be the same, so that RabbitMQ's permissions on topics decide who
submits to which queue; it counts alone where the routing key is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from ..brokers.message import Delivery
from ..brokers.topology import Names
from ..metadata.job import NewJob
from .app import Callboard
from .arguments import ArgumentsInvalid
from .errors import InvalidJob, PayloadTooLarge
from .job_id import check_id, check_queue, check_task
from .json_value import shown
from .options import CallOptions
from .settings import Settings
from .strict_json import Document, JsonLimits, JsonRefused, Refusal, cut_up, pointer, read
from .wire import decode_body, encode_body

MESSAGE_ID_HEADER = "callboard-message-id"  # goes before the property, which some clients set anew for each publish
MAX_MESSAGE = 500  # characters of a refusal's message
UNDECODABLE_HEADER = "x-undecodable"  # the broker's: see brokers/rabbitmq/tolerant.py

_OPTIONS = ("delay", "run_at", "priority", "retries", "backoff", "timeout", "ttl", "deduplication", "meta")
MEMBERS = frozenset({"task", "args", "kwargs", "id", "queue", "depends_on", *_OPTIONS})
_JSON = re.compile(r'\Aapplication/json *(?:; *charset *= *"?utf-8"?)? *\Z', re.IGNORECASE)
_MOMENT = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z")
_TRACEPARENT = re.compile(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_SEGMENT = re.compile(r"[^.\[\]']+")


class Refused(Struct, frozen=True):
    """`message_id`: the id that the job would have had, where its body has none."""

    refusal: Refusal
    message_id: str | None = None


class Submission(Struct, frozen=True):
    """`parts` in the order of the body. `array`: there is one for each element."""

    delivery: Delivery
    parts: tuple[NewJob | Refused, ...]
    array: bool = False

    @property
    def jobs(self) -> list[NewJob]:
        return [part for part in self.parts if isinstance(part, NewJob)]

    def bodies(self) -> list[bytes]:
        """The bytes of each part, as they were sent."""
        if not self.array:
            return [self.delivery.body]
        return cut_up(self.delivery.body)


class _Refuse(Exception):
    def __init__(self, code: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.refusal = Refusal(code, brief(message), path)


def brief(message: str) -> str:
    """A sentence that is told of a job to whoever sent it: what it quotes may have any length."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."


def limits_of(settings: Settings) -> JsonLimits:
    return JsonLimits(
        size=settings.intake_body_limit,
        depth=settings.intake_depth_limit,
        values=settings.intake_value_limit,
        string=settings.intake_string_limit,
    )


class SubmissionReader:
    """Knows an app's tasks, if it has any: what they refuse is refused here, and what they declare is the default."""

    def __init__(self, app: Callboard, names: Names) -> None:
        self._app = app
        self._submit = names.submit
        self._limits = limits_of(app.settings)

    def read(self, delivery: Delivery) -> Submission:
        """Never raises for what a stranger can send."""
        try:
            _check_properties(delivery)
            document = read(delivery.body, self._limits, size=delivery.size)
            elements, array = _elements(document.value)
        except _Refuse as error:
            return self._whole(delivery, error.refusal)
        except JsonRefused as error:
            return self._whole(delivery, error.refusal)
        parts: list[NewJob | Refused] = []
        name = message_id(delivery)
        for index, element in enumerate(elements):
            path = pointer(index) if array else ""
            default_id = f"{name}.{index}" if array and name is not None else name
            try:
                parts.append(self._job(document, element, path, default_id, delivery))
            except _Refuse as error:
                parts.append(Refused(error.refusal, default_id))
        return Submission(delivery, tuple(parts), array=array)

    def _whole(self, delivery: Delivery, refusal: Refusal) -> Submission:
        return Submission(delivery, (Refused(refusal, message_id(delivery)),))

    def _job(
        self, document: Document, element: object, path: str, default_id: str | None, delivery: Delivery
    ) -> NewJob:
        if refusal := document.fault(element, path):
            raise _Refuse(refusal.code, refusal.message, refusal.path)
        if not isinstance(element, dict):
            raise _Refuse("wrong-type", f"a job is a JSON object, not {shown(element)}", path)
        _check_members(element, path)
        task = _checked(check_task, element["task"], path + "/task")
        queue = self._queue(element.get("queue"), path, delivery)
        options = _options(element, path, default_id)
        args, kwargs = element.get("args"), element.get("kwargs")
        if args is not None and not isinstance(args, list):
            raise _Refuse("invalid-member", f"args must be an array, not {shown(args)}", path + "/args")
        if kwargs is not None and not isinstance(kwargs, dict):
            raise _Refuse("invalid-member", f"kwargs must be an object, not {shown(kwargs)}", path + "/kwargs")
        try:
            job = self._app.new_job(task, args or [], kwargs or {}, options, queue=queue)
        except ArgumentsInvalid as error:
            raise _Refuse("invalid-arguments", str(error), path + _as_pointer(error.path)) from None
        except PayloadTooLarge as error:
            raise _Refuse("payload-too-large", str(error), path) from None
        except InvalidJob as error:
            raise _Refuse("invalid-member", str(error), path) from None
        except Exception as error:  # the types of a task's arguments are the app's own code, and may raise anything
            if task not in self._app.tasks:
                raise
            said = f"the task's own check of its arguments raised {type(error).__name__}"
            raise _Refuse("invalid-arguments", said, path) from None
        return _traced(job, delivery)

    def _queue(self, given: object, path: str, delivery: Delivery) -> str | None:
        """None: neither says it, and the task's own is taken."""
        key = delivery.routing_key if delivery.exchange == self._submit else ""
        if given is not None:
            queue = _checked(check_queue, given, path + "/queue")
            if key and key != queue:
                raise _Refuse(
                    "queue-mismatch",
                    f"the body says queue {queue!r}, the routing key {shown(key)}; leave one of them empty",
                    path + "/queue",
                )
            return queue
        return _checked(check_queue, key, "routing_key") if key else None


def message_id(delivery: Delivery) -> str | None:
    """What stands for the id of a job that has none of its own."""
    named = delivery.headers.get(MESSAGE_ID_HEADER)
    return named if isinstance(named, str) and named else delivery.message_id or None


def _check_properties(delivery: Delivery) -> None:
    if UNDECODABLE_HEADER in delivery.headers:
        reason = delivery.headers[UNDECODABLE_HEADER]
        raise _Refuse("undecodable-properties", f"the message's properties cannot be decoded: {reason}")
    content_type, encoding = delivery.content_type, delivery.content_encoding
    if content_type and not _JSON.match(content_type):
        raise _Refuse(
            "content-type",
            f"content_type must be application/json or absent, not {shown(content_type)}",
            "content_type",
        )
    if encoding and encoding.lower() not in ("identity", "utf-8"):
        raise _Refuse(
            "content-encoding",
            f"content_encoding must be identity, utf-8 or absent, not {shown(encoding)}; nothing is decompressed",
            "content_encoding",
        )


def _elements(value: object) -> tuple[list[Any], bool]:
    if not isinstance(value, list):
        return [value], False
    if not value:
        raise _Refuse("no-jobs", "the array holds no job")
    return value, True


def _check_members(element: dict[str, Any], path: str) -> None:
    if not MEMBERS.issuperset(element):
        name = next(name for name in element if name not in MEMBERS)
        raise _Refuse(
            "unknown-member",
            f"{shown(name)} is no member of a job; known are {', '.join(sorted(MEMBERS))}",
            path + pointer(name),
        )
    if element.get("task") is None:
        raise _Refuse("missing-member", "task is missing: the registered name of the task to run", path + "/task")
    if element.get("depends_on") is not None:
        raise _Refuse(
            "unsupported",
            "depends_on is not supported yet; enqueue the dependent job from the task that it waits for",
            path + "/depends_on",
        )


def _checked(check: Any, value: object, path: str) -> str:
    try:
        return str(check(value))
    except (InvalidJob, TypeError) as error:
        raise _Refuse("invalid-member", str(error), path) from None


def _options(element: dict[str, Any], path: str, default_id: str | None) -> CallOptions:
    given: dict[str, Any] = {name: element[name] for name in _OPTIONS if element.get(name) is not None}
    if isinstance(given.get("run_at"), str):
        given["run_at"] = _moment(given["run_at"], path + "/run_at")
    job_id = element.get("id")
    if job_id is None and default_id is not None:
        job_id = _checked(lambda value: check_id(value, member="message_id"), default_id, "message_id")
    elif job_id is not None:
        job_id = _checked(lambda value: check_id(value, member="id"), job_id, path + "/id")
    try:
        return CallOptions.parse(job_id=job_id, **given)
    except (InvalidJob, TypeError, OverflowError) as error:
        raise _Refuse("invalid-member", str(error), path + _culprit(given)) from None


def _culprit(given: Mapping[str, Any]) -> str:
    """The member that is refused by itself; nothing where it is their combination."""
    for name, value in given.items():
        try:
            CallOptions.parse(**{name: value})
        except (InvalidJob, TypeError, OverflowError):
            return f"/{name}"
    return ""


def _moment(text: str, path: str) -> datetime:
    if _MOMENT.match(text):
        try:
            return datetime.fromisoformat(text.upper())
        except ValueError:
            pass
    raise _Refuse(
        "invalid-member",
        f"run_at must be Unix seconds or RFC 3339 with an offset, such as 2030-01-31T09:00:00Z, not {shown(text)}",
        path,
    )


def _as_pointer(path: str) -> str:
    """kwargs.to[0] as /kwargs/to/0."""
    return pointer(*_SEGMENT.findall(path))


def _traced(job: NewJob, delivery: Delivery) -> NewJob:
    traceparent = delivery.headers.get("traceparent")
    if not isinstance(traceparent, str) or not _TRACEPARENT.match(traceparent):
        return job  # W3C: what is malformed is ignored
    body = msgspec.structs.replace(decode_body(job.payload), traceparent=traceparent)
    return msgspec.structs.replace(job, payload=encode_body(body))
