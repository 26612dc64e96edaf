"""How a command ends: its exit code, and one line on stderr for every failure that was to be expected.

     0  done; for `up` and `run`: ended in order
     1  it failed: a job failed, an id is unknown, a queue was not found
     2  usage or configuration: an option, a setting, an app reference, a store that must not be used as it is set up
    69  the store or the broker could not be used: not reached, or it refused the credentials
    70  an actor failed more often than its restart intensity allows

What was not to be expected ends with a traceback and 1.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import typer

from ...brokers.errors import BrokerError
from ...metadata.errors import CapabilityMissing, MetadataError, StoreRefused
from ..errors import CallboardError, ConfigurationError, GaveUp, InvalidJob, JobFailed
from ..triggers import TriggerInvalid
from .screen import printable

log = logging.getLogger("callboard")

OK, FAILURE, USAGE, UNAVAILABLE, GAVE_UP = 0, 1, 2, 69, 70


class CommandFailed(CallboardError):
    """A command could not do what it was asked for; the message says what to do."""

    def __init__(self, message: str, *, code: int = FAILURE) -> None:
        super().__init__(message)
        self.code = code


# The first class that fits counts.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (GaveUp, GAVE_UP),
    (ConfigurationError, USAGE),
    (InvalidJob, USAGE),
    (TriggerInvalid, USAGE),
    (CapabilityMissing, USAGE),
    (StoreRefused, USAGE),
    (MetadataError, UNAVAILABLE),
    (BrokerError, UNAVAILABLE),
    (CallboardError, FAILURE),
)
EXPECTED = tuple(kind for kind, _ in _CODES)


def ending(work: Callable[[], None]) -> int:
    """Do the work; its exit code, after its failure has been told. Raises what was not to be expected."""
    try:
        work()
    except EXPECTED as error:
        tell(message_of(error))
        return code_of(error)
    return OK


def logged_ending(work: Callable[[], None]) -> int:
    """`ending` where programs read what is logged: any failure is a record, in place of a line or a traceback."""
    try:
        work()
    except EXPECTED as error:
        log.error("%s", message_of(error))
        return code_of(error)
    except typer.Exit:
        raise
    except Exception as error:  # told with its traceback, as the interpreter would
        log.critical("this was not to be expected: %r", error, exc_info=error)
        return FAILURE
    return OK


def code_of(error: Exception) -> int:
    if isinstance(error, CommandFailed):
        return error.code
    return next(code for kind, code in _CODES if isinstance(error, kind))


def message_of(error: Exception) -> str:
    if isinstance(error, GaveUp) and error.__cause__ is not None:
        cause = _first(error.__cause__)
        return f"{error}; its last failure: {type(cause).__name__}: {cause}"
    if isinstance(error, JobFailed):
        return f"job {error.job_id} failed: {error.error_type}: {error.message}"
    return str(error)


def _first(error: BaseException) -> BaseException:
    """Of a group, which only counts what it holds, the first that says something."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def tell(message: str) -> None:
    """One line on stderr."""
    print(f"callboard: {printable(message)}", file=sys.stderr)
