"""aiormq logs a traceback for each connection that is lost. For connections of ours it is one line of ours, with the
reason (keeper.py), and aiormq's words go, with their traceback, to our debug log.

A message that comes back after its publisher has stopped waiting it logs whole, with the body, which may hold secrets:
that goes, for publishing channels of ours.

Only what aiormq says in the context in which one of our connections or publishing channels was made is taken: other
users of aiormq in the process hear all of it, and so does everybody of whatever else it says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_AIORMQ = logging.getLogger("aiormq.connection")
# As aiormq begins them; another wording of another version is simply not taken.
_ABOUT_THE_LOSS = (
    "Cancelling cause reader exited abnormally",
    "Unexpected connection close from remote",
    "error when creating transport",
)
_CHANNELS = logging.getLogger("aiormq.channel")
_WITH_A_BODY = "Unhandled message"

log = logging.getLogger(__name__)
_ours: ContextVar[Callable[[str], None] | None] = ContextVar("callboard_rabbitmq_connection", default=None)


@contextmanager
def quiet(heard: Callable[[str], None]) -> Iterator[None]:
    """Tasks that are made in this block, and what they call back, are ours. `heard` is told an error that ended one."""
    if _taken not in _AIORMQ.filters:
        _AIORMQ.addFilter(_taken)
        _CHANNELS.addFilter(_without_a_body)
    token = _ours.set(heard)
    try:
        yield
    finally:
        _ours.reset(token)


def _taken(record: logging.LogRecord) -> bool:
    """Whether a record goes on to whoever listens to aiormq."""
    heard = _ours.get()
    if heard is None or not str(record.msg).startswith(_ABOUT_THE_LOSS):
        return True
    if record.exc_info and record.exc_info[1] is not None:
        heard(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
    log.debug("aiormq: %s", record.getMessage(), exc_info=record.exc_info)
    return False


def _without_a_body(record: logging.LogRecord) -> bool:
    if _ours.get() is None or not str(record.msg).startswith(_WITH_A_BODY):
        return True
    log.debug("aiormq: a message came back whose publisher waits no longer")
    return False
