"""JSON from strangers: measured before it is parsed, and told exactly what is wrong with it.

    read(body, limits)   -> Document, or JsonRefused for what cannot be read at all, or only at a price
    Document.fault(path) -> the first value under it that is no good though the rest can be read

A body is refused as a whole for its size, its encoding, its depth, the number of its values, a string that is too long,
and for not being JSON. Of an integer beyond 64 bits, a float beyond a double, a lone surrogate and a member that is
given twice, the place is known, so that an element of an array can be refused without its neighbours.

What it costs before a limit is met grows with the limits and not with the body: 15 MB of `[],` would parse to 390 MB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from .json_value import shown

INTEGER_BITS = 64
_INTEGERS = range(-(2**63), 2**64)
MAX_PATH = 200

# Strings are passed over whole; one that never ends takes the rest, so that no byte is looked at twice.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
# What may be too large for 64 bits or for a double. Without it every number is known to be good.
_WIDE = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}")
_WHITESPACE = re.compile(r"[ \t\n\r]*+")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonLimits(Struct, frozen=True, kw_only=True):
    """`size`, `string`: bytes; a string is measured as it is written. `values`: everything but names of members."""

    size: int = 1024 * 1024
    depth: int = 64
    values: int = 10_000
    string: int = 256 * 1024


class Refusal(Struct, frozen=True):
    """Why something from a stranger is not taken. `code` is a word to be counted, `path` a JSON pointer into the body,
    or the name of a property."""

    code: str
    message: str
    path: str = ""


class JsonRefused(ValueError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(code, message)


class Document(Struct, frozen=True):
    value: Any
    suspicious: bool  # something in it is, or may be, at fault

    def fault(self, value: Any, path: str = "") -> Refusal | None:
        """The first fault in `value`, which is a part of this document, found at `path`."""
        return _fault(value, path) if self.suspicious else None


class _Fault(Struct, frozen=True):
    """Stands in a document for a value that is at fault."""

    code: str
    message: str
    member: str | None = None


class _Twice(Exception):
    """An object has two members of one name."""


def read(body: bytes, limits: JsonLimits, *, size: int | None = None) -> Document:
    """`size`: that of the whole body, where only its beginning is here. Raises JsonRefused."""
    size = len(body) if size is None else size
    if size > limits.size:
        raise JsonRefused("too-large", f"the body takes {size} bytes, the limit is {limits.size}")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        byte = body[error.start]
        raise JsonRefused("not-utf-8", f"the body is not UTF-8: byte {error.start} is {byte:#04x}") from None
    _measure(body, limits)
    suspicious = _SURROGATE.search(body) is not None
    try:
        if _WIDE.search(body) is None:
            try:
                return Document(_strict.decode(text), suspicious)
            except _Twice:
                pass
        return Document(_marking.decode(text), True)
    except json.JSONDecodeError as error:
        there = shown(text[error.pos : error.pos + 20]) if error.pos < len(text) else "the end"
        raise JsonRefused("not-json", f"{error.msg} (character {error.pos}, before {there})") from None


def cut_up(body: bytes) -> list[bytes]:
    """The elements of an array that was read before, as they were written."""
    text = body.decode()
    found: list[bytes] = []
    position = _next(text, text.index("[") + 1)
    while text[position] != "]":
        _, end = _marking.raw_decode(text, position)
        found.append(text[position:end].encode())
        position = _next(text, end)
        if text[position] == ",":
            position = _next(text, position + 1)
    return found


def _next(text: str, position: int) -> int:
    found = _WHITESPACE.match(text, position)
    return position if found is None else found.end()


def pointer(*segments: str | int) -> str:
    """A JSON pointer (RFC 6901) of at most 200 characters."""
    escaped = (str(one).replace("~", "~0").replace("/", "~1") for one in segments)
    return "".join(f"/{one}" for one in escaped)[:MAX_PATH]


def _measure(body: bytes, limits: JsonLimits) -> None:
    opened = body.count(b"[") + body.count(b"{")
    # Both bounds count what stands in strings too: they are never too low.
    if opened <= limits.depth and opened + body.count(b",") < limits.values and len(body) <= limits.string:
        return
    depth, values, strings = 0, 1, 0
    for token in _TOKEN.finditer(body):
        start = body[token.start()]
        if start == 0x22:
            strings += 1
            if strings > 2 * limits.values:  # a name and a value each, in JSON; in other bytes there may be more
                values = limits.values + 1
            if token.end() - token.start() - 2 > limits.string:
                length = token.end() - token.start() - 2
                raise JsonRefused(
                    "string-too-long",
                    f"the string at byte {token.start()} takes {length} bytes, the limit is {limits.string}",
                )
        elif start in b"[{":
            depth += 1
            values += 1
            if depth > limits.depth:
                raise JsonRefused(
                    "too-deep", f"at byte {token.start()} it is nested {depth} levels deep, the limit is {limits.depth}"
                )
        elif start in b"]}":
            depth -= 1
        else:
            values += 1
        if values > limits.values:
            raise JsonRefused(
                "too-many-values", f"up to byte {token.start()} there are {values} values, the limit is {limits.values}"
            )


def _refuse_constant(name: str) -> Any:
    raise JsonRefused("not-json", f"{name} is no JSON number")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Twice
    return members


def _mark_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any] | _Fault:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            return _Fault("duplicate-member", f"the member {shown(name)} is given twice", name)
        members[name] = value
    return members


def _mark_wide_int(digits: str) -> int | _Fault:
    if len(digits) <= 20 and (number := int(digits)) in _INTEGERS:
        return number
    return _Fault("number-too-large", f"the integer {shown(digits)} does not fit into {INTEGER_BITS} bits")


def _mark_infinite(digits: str) -> float | _Fault:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        return _Fault("number-too-large", f"the number {shown(digits)} does not fit into a double")
    return number


_strict = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant)
_marking = json.JSONDecoder(
    object_pairs_hook=_mark_twice,
    parse_int=_mark_wide_int,
    parse_float=_mark_infinite,
    parse_constant=_refuse_constant,
)


def _fault(value: Any, path: str) -> Refusal | None:
    match value:
        case _Fault():
            where = path if value.member is None else path + pointer(_printable(value.member))
            return Refusal(value.code, value.message, where[:MAX_PATH])
        case str():
            return _surrogate(value, path)
        case dict():
            for name, item in value.items():
                if refusal := _surrogate(name, path) or _fault(item, path + pointer(name)):
                    return refusal
        case list():
            for index, item in enumerate(value):
                if refusal := _fault(item, path + pointer(index)):
                    return refusal
    return None


def _surrogate(text: str, path: str) -> Refusal | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        message = f"a string holds a lone surrogate, \\u{code:04x} at {error.start}, which is not Unicode text"
        return Refusal("lone-surrogate", message, path[:MAX_PATH])
    return None


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
