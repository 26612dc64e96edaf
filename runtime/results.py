"""How a run ended, as bytes in a store: the JSON of what it returned, or its error as text.

An error is never rebuilt: what was raised is described where it happened, within bounds, and read by people. Whatever
an exception's own `__str__` does, describing it neither fails nor takes more than the limits say (a `__str__` that
never returns is the task's own endless loop).

    ResultInvalid     what a task returned has no JSON form: names the path and the type
    ResultTooLarge    it has, but beyond the limit
    RemoteFailure     an error that a task raised in another process
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from .errors import CallboardError
from .json_value import NotJson, encode_json

MAX_MESSAGE_BYTES = 4096
MAX_TRACEBACK_BYTES = 16_384
MAX_TYPE_BYTES = 200
MAX_CAUSES = 10
MAX_FRAMES = 50  # of each error in the chain: a deep recursion's traceback is long before it is cut


class ResultInvalid(CallboardError, ValueError):
    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ResultTooLarge(CallboardError, ValueError):
    def __init__(self, *, size: int, limit: int) -> None:
        super().__init__(
            f"the result takes {size} bytes, the limit is {limit}; store the data elsewhere and return a reference, "
            "or raise result_limit"
        )
        self.size = size
        self.limit = limit


class ErrorInfo(Struct, frozen=True, kw_only=True):
    """An error as text. `type` is `module.qualname`, without the module for builtins; `message` has at most 4 KB,
    `traceback` at most 16 KB, with causes and without the values of variables. What was cut says so."""

    type: str
    message: str
    traceback: str = ""


class RemoteFailure(Exception):
    """An error that a task raised in another process: its text, and `module.qualname` of its class and that class's
    bases, by which retry decisions are made. The error itself is never rebuilt."""

    def __init__(self, info: ErrorInfo, *, class_names: tuple[str, ...]) -> None:
        super().__init__(f"{info.type}: {info.message}")
        self.info = info
        self.class_names = class_names


def encode_result(value: object, limit: int) -> bytes:
    """The JSON of what a task returned. `limit` in bytes. Raises ResultInvalid or ResultTooLarge."""
    try:
        encoded = encode_json(value, "result")
    except NotJson as error:
        raise ResultInvalid(path=error.path, reason=error.reason) from error
    if len(encoded) > limit:
        raise ResultTooLarge(size=len(encoded), limit=limit)
    return encoded


def decode_result(encoded: bytes) -> Any:
    """What `encode_result` was given, as plain JSON values. Raises msgspec.DecodeError for bytes that are not JSON."""
    return msgspec.json.decode(encoded)


def describe_error(error: BaseException) -> ErrorInfo:
    """The error as text; a RemoteFailure is described as it was where it was raised."""
    if isinstance(error, RemoteFailure):
        return error.info
    return ErrorInfo(
        type=cut(class_name(type(error)), MAX_TYPE_BYTES),
        message=cut(message_of(error), MAX_MESSAGE_BYTES),
        traceback=cut_middle(_traceback_of(error), MAX_TRACEBACK_BYTES),
    )


def encode_error(error: ErrorInfo) -> bytes:
    return _encode(error)


def decode_error(encoded: bytes) -> ErrorInfo:
    """Raises msgspec.DecodeError for bytes that `encode_error` did not write."""
    return _error.decode(encoded)


def class_name(one: type) -> str:
    """`module.qualname`, without the module for builtins."""
    prefix = "" if _text_of(lambda: one.__module__) == "builtins" else f"{_text_of(lambda: one.__module__)}."
    name = _text_of(lambda: f"{prefix}{one.__qualname__}")
    return name or "<a class that hides its name>"


def message_of(error: BaseException) -> str:
    text = _text_of(lambda: str(error))
    if text is not None:
        return text
    return _text_of(lambda: repr(error)) or f"<{class_name(type(error))}, whose __str__ and __repr__ fail>"


def cut(text: str, limit: int) -> str:
    """The first `limit` bytes of the text's UTF-8, cut between characters and marked."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    mark = f"... ({len(encoded)} bytes)"
    return encoded[: limit - len(mark)].decode(errors="ignore") + mark


def cut_middle(text: str, limit: int) -> str:
    """Like `cut`, but keeps both ends: a traceback says where it began and what went wrong."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    mark = f"\n... ({len(encoded)} bytes, the middle is left out)\n"
    first = (limit - len(mark)) // 4
    last = limit - len(mark) - first
    return encoded[:first].decode(errors="ignore") + mark + encoded[-last:].decode(errors="ignore")


_encode = msgspec.json.Encoder().encode
_error = msgspec.json.Decoder(ErrorInfo)


def _text_of(write: Callable[[], object]) -> str | None:
    """None where a task's own method fails: its error has been caught already, and describing it must not raise."""
    try:
        text = write()
    except BaseException:  # even SystemExit: it is raised by a __str__, nobody meant to end the worker with it
        return None
    return str.__str__(text) if isinstance(text, str) else None


def _traceback_of(error: BaseException) -> str:
    """As the interpreter prints it, causes first, but with messages written under our limits."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < MAX_CAUSES:
        seen.add(id(current))
        parts.append(_frames_of(current))
        if current.__cause__ is not None:
            parts.append("\nThe above exception was the direct cause of the following exception:\n\n")
            current = current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            parts.append("\nDuring handling of the above exception, another exception occurred:\n\n")
            current = current.__context__
        else:
            current = None
    if parts and parts[-1].startswith("\n"):
        parts[-1] = "(further causes are left out)\n" + parts[-1]
    return "".join(reversed(parts))


def _frames_of(error: BaseException) -> str:
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), limit=-MAX_FRAMES, lookup_lines=True, capture_locals=False
    )
    head = "Traceback (most recent call last):\n" if frames else ""
    message = cut(message_of(error), MAX_MESSAGE_BYTES // 2)
    last = f"{class_name(type(error))}: {message}\n" if message else f"{class_name(type(error))}\n"
    group = _group_of(error)
    return head + "".join(frames.format()) + last + group


def _group_of(error: BaseException) -> str:
    if not isinstance(error, BaseExceptionGroup):
        return ""
    shown = error.exceptions[:MAX_CAUSES]
    lines = [f"  - {class_name(type(one))}: {cut(message_of(one), 500)}\n" for one in shown]
    more = len(error.exceptions) - len(shown)
    return "".join(lines) + (f"  - and {more} more\n" if more else "")
