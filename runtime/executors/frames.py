"""What a worker and its child processes say to one another: JSON in frames, over a socket pair.

    parent                          child
      │  Hello ───────────────────────> │   once: where modules are found, limits
      │ <─────────────────────── Ready  │
      │  Run ─────────────────────────> │   one call; the next only after its end
      │ <──────────────────── Progress  │   any number
      │  Lease, Stop ─────────────────> │   what the context shows; cancellation
      │ <─ Done | Raised | Asked |      │   exactly one for each Run
      │    Refused | TooLarge | NotJson │
      │  (end of file) ───────────────> │   finish; also what a parent's death looks like

A frame is a length (4 bytes, big-endian) and that many bytes of JSON. The child never learns of a function but from
its parent's Run, which reads it off the function object that the app registered; nothing here comes from a message.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ..results import ErrorInfo

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 256 * 1024 * 1024  # either way; results have a lower limit of their own
MAX_PROGRESS_BYTES = 64 * 1024
OVERHEAD_BYTES = 256 * 1024  # what a frame may take beside a result: an error's texts, names of classes


class Frame(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    pass


class Hello(Frame, frozen=True, kw_only=True):
    """`memory_bytes`: limit of the address space. `processes`: of the processes of this user (not for root).
    `log_level`: log from that level on as JSON; None: logging is left alone."""

    parent: int
    sys_path: list[str]
    main_path: str | None
    main_module: str | None
    memory_bytes: int | None = None
    processes: int | None = None
    log_level: int | None = None


class Ready(Frame, frozen=True, kw_only=True):
    pass


class About(Struct, frozen=True, kw_only=True):
    """The run that the child's Context tells of."""

    job_id: str
    queue: str
    task: str
    attempt: int
    dispatch: int
    fence: int
    worker: str
    meta: dict[str, Any]
    traceparent: str | None = None


class Run(Frame, frozen=True, kw_only=True):
    number: int
    module: str
    qualname: str
    args: Raw
    kwargs: Raw
    about: About
    result_limit: int


class Stop(Frame, frozen=True, kw_only=True):
    number: int


class Lease(Frame, frozen=True, kw_only=True):
    certain: bool


class Progress(Frame, frozen=True, kw_only=True):
    value: Raw


class Done(Frame, frozen=True, kw_only=True):
    result: Raw


class Raised(Frame, frozen=True, kw_only=True):
    """Any error. `class_names`: of its class and the class's bases."""

    error: ErrorInfo
    class_names: tuple[str, ...]


class Asked(Frame, frozen=True, kw_only=True):
    """The task raised Retry."""

    after_ms: int | None = None
    reason: str | None = None


class Refused(Frame, frozen=True, kw_only=True):
    """The arguments do not fit the function."""

    path: str
    reason: str
    value: str | None = None


class NotJson(Frame, frozen=True, kw_only=True):
    path: str
    reason: str


class TooLarge(Frame, frozen=True, kw_only=True):
    size: int
    limit: int


Outcome = Done | Raised | Asked | Refused | NotJson | TooLarge
FromChild = Ready | Progress | Outcome
FromParent = Hello | Run | Stop | Lease

_encode = msgspec.json.Encoder().encode
_from_child: msgspec.json.Decoder[FromChild] = msgspec.json.Decoder(FromChild)
_from_parent: msgspec.json.Decoder[FromParent] = msgspec.json.Decoder(FromParent)


def encode_frame(frame: Frame) -> bytes:
    body = _encode(frame)
    return HEADER.pack(len(body)) + body


def decode_from_child(body: bytes) -> FromChild:
    """Raises msgspec.DecodeError."""
    return _from_child.decode(body)


def decode_from_parent(body: bytes) -> FromParent:
    return _from_parent.decode(body)
