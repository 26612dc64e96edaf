"""Ids of jobs and names of queues: what is accepted, and how our own are made."""

from __future__ import annotations

import re
import secrets

from .errors import InvalidJob
from .json_value import shown

MAX_ID_BYTES = 256
_QUEUE = re.compile(r"\A[A-Za-z0-9_.:-]{1,128}\Z")
_TASK = re.compile(r"\A[A-Za-z0-9_.:<>-]{1,200}\Z")


def new_id(now: int) -> str:
    """32 hexadecimal digits that sort by time: 48 bits of ms, 80 random bits from the operating system."""
    return f"{now:012x}{secrets.token_hex(10)}"


def check_id(value: object, *, member: str = "job_id") -> str:
    """The reference's rules: a non-empty string, not all digits, without ':'; and no control characters, at most 256
    bytes of UTF-8. Raises InvalidJob with the value, TypeError where it is no string."""
    if not isinstance(value, str):
        raise TypeError(f"{member} must be a string, not {shown(value)}")
    if not value:
        raise InvalidJob(f"{member} must not be empty")
    if value.isdigit():
        raise InvalidJob(
            f"{member} must not be all digits: {shown(value)}; put a letter in front: 'order-{value[:40]}'"
        )
    if ":" in value:
        raise InvalidJob(f"{member} must not contain ':': {shown(value)}; use '-' or '/'")
    if not value.isprintable():
        raise InvalidJob(f"{member} must not contain control characters: {shown(value)}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidJob(f"{member} is not valid Unicode: {shown(value)}") from error
    if size > MAX_ID_BYTES:
        raise InvalidJob(f"{member} takes {size} bytes, at most {MAX_ID_BYTES} are allowed: {value[:40]!r}...")
    return value


def check_queue(value: object) -> str:
    """1 to 128 letters, digits and '_.:-' of ASCII."""
    if not isinstance(value, str) or not _QUEUE.match(value):
        raise InvalidJob(f"queue must be 1 to 128 of the characters A-Z a-z 0-9 _ . : - , not {shown(value)}")
    return value


def check_task(value: object) -> str:
    if not isinstance(value, str) or not _TASK.match(value):
        raise InvalidJob(f"task must be a name of 1 to 200 of the characters A-Z a-z 0-9 _ . : - , not {shown(value)}")
    return value
