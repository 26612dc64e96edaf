"""What may travel as JSON: arguments on their way to a task, results on their way back.

Told apart by exact meaning, since JSON encoders are generous where a job must not be: msgspec writes NaN as null and
the key 1 as "1", without a word. Here a value either comes back equal (tuples and sets as lists; dates, UUIDs,
decimals, enums, bytes, models and dataclasses in their JSON forms, which the task's type hints turn back), or is
refused with its path.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import reprlib
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

MAX_DEPTH = 64  # protocol.md 2.18: deeper documents are refused where they come in
MAX_INTEGER_BITS = 4096  # msgspec and CPython stop at 4300 digits, about 14,000 bits
MAX_SHOWN = 200

_encode = msgspec.json.Encoder().encode


class NotJson(ValueError):
    """A value that has no JSON form which would come back equal. `path` is where it was found, `reason` says why."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def encode_json(value: object, path: str) -> bytes:
    """`value` as JSON. Raises NotJson, its path starting with `path`."""
    return _encode(to_plain(value, path))


def to_plain(value: object, path: str) -> Any:
    """`value` as None, bool, int, float, str, list and dict alone. Raises NotJson, its path starting with `path`."""
    try:
        return _plain(value, 0)
    except _Refused as refused:
        where = path + "".join(map(path_segment, reversed(refused.segments)))
        raise NotJson(path=where, reason=refused.reason) from refused.__cause__


def path_segment(segment: str | int) -> str:
    if isinstance(segment, int):
        return f"[{segment}]"
    return f".{segment}" if segment.isidentifier() and len(segment) <= 80 else f"[{segment[:80]!r}]"


def shown(value: object) -> str:
    """A repr of at most 200 characters, made without looking at all of a large JSON value."""
    if isinstance(value, str | bytes):
        text = repr(value[:MAX_SHOWN])
    elif isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        text = f"<int of {value.bit_length()} bits>"
    else:
        text = _short.repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


class _Refused(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.segments: list[str | int] = []  # innermost first: filled on the way out, so that success costs nothing


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        if value.bit_length() > MAX_INTEGER_BITS:
            raise _Refused(f"an int of {value.bit_length()} bits; at most {MAX_INTEGER_BITS} come back equal")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise _Refused(f"{value} has no JSON form")
        return value
    if depth >= MAX_DEPTH:
        raise _Refused(f"nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, dict):
        return _object(value, depth)
    if isinstance(value, list | tuple):
        return _array(value, depth)
    return _plain(_json_form(value), depth + 1)


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _Refused(f"a string with a lone surrogate at {error.start}, which is not Unicode text") from None
    return value


def _array(value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    items: list[Any] = []
    try:
        for item in value:
            items.append(_plain(item, depth + 1))  # not a comprehension: the length is the path of what is refused
    except _Refused as refused:
        refused.segments.append(len(items))
        raise
    return items


def _object(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _Refused(f"the key {shown(key)} is a {type(key).__name__}; JSON has string keys only")
        name = _text(str(key.value) if isinstance(key, Enum) else str.__str__(key))
        try:
            members[name] = _plain(item, depth + 1)
        except _Refused as refused:
            refused.segments.append(name)
            raise
    return members


def _json_form(value: Any) -> Any:
    """One step towards JSON for a value that is not JSON by itself."""
    match value:
        case Enum():
            return value.value
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case Decimal() if not value.is_finite():
            raise _Refused(f"{value} has no JSON form")
        case date() | time() | timedelta() | UUID() | Decimal():
            return msgspec.to_builtins(value)
        case PurePath():
            return str(value)
        case set() | frozenset():
            # In the order of their JSON, so that the same call gives the same bytes whatever the hash seed.
            return sorted((_plain(item, 0) for item in value), key=_encode)
        case BaseModel():
            return _dumped(value)
        case Struct():
            names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
            return {encoded: getattr(value, name) for name, encoded in names}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise _Refused(f"a {type(value).__module__}.{type(value).__qualname__} has no JSON form")


def _dumped(value: BaseModel) -> Any:
    try:
        # round_trip leaves out computed fields, which a model that forbids extra members would refuse.
        return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings="error")
    except (PydanticSerializationError, UnicodeDecodeError) as error:
        raise _Refused(f"the model {type(value).__qualname__} cannot be dumped: {str(error)[:200]}") from error
