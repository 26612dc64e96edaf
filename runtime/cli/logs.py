"""Log records on stderr: one line each, whatever a message holds.

    2026-01-31T12:00:00.123Z INFO 4711 callboard.worker: worker 6fd1a2b3 serves emails

A traceback, or the stack where one was asked for, follows its record; each of its lines begins with "  | ", so none of
them can pass for a record. As JSON a record is one object, its traceback included: see `json_log`.
"""

from __future__ import annotations

import logging
import sys
import time
from enum import StrEnum
from typing import TextIO

from ..json_log import JsonFormatter, SpanIds, message_of
from .screen import printable


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


# Least levels of loggers that are not ours: chatty, and free to log what they were called with. What aiormq calls an
# error, a connection that could not be made, Callboard tells itself.
_LEAST = {"aio_pika": logging.WARNING, "aiormq": logging.CRITICAL, "asyncio": logging.WARNING, "redis": logging.WARNING}


class LineFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(process)d %(name)s: ")

    def format(self, record: logging.LogRecord) -> str:
        record.asctime = self.formatTime(record)
        text = printable(self.formatMessage(record) + message_of(record))
        job = getattr(record, "job", None)  # of a task's own logger, see Context.logger
        if job is not None:
            trace = getattr(record, "trace", None)
            traced = f" trace {trace}" if trace else ""
            text += printable(f" [job {job} attempt {getattr(record, 'attempt', '?')}{traced}]")
        followed_by = [self.formatException(record.exc_info)] if record.exc_info else []
        for lines in (*followed_by, record.stack_info or ""):
            text += "".join(f"\n  | {line}" for line in printable(lines, newlines=True).splitlines())
        return text


def log_to(
    stream: TextIO | None = None, *, level: LogLevel, form: str = LogFormat.TEXT, span_ids: SpanIds | None = None
) -> None:
    """Send all records of that level and above to the stream (default: stderr), in place of earlier handlers. `form`: a
    LogFormat."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(span_ids) if form == LogFormat.JSON else LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _LEAST.items():
        logging.getLogger(name).setLevel(max(least, root.level))
