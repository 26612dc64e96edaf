r"""Log records as JSON: one object a line, whatever a message holds.

    {"time": "2026-01-31T12:00:00.123Z", "level": "info", "logger": "shop", "process": 4711, "message": "sent",
     "job_id": "...", "queue": "emails", "task": "shop.send_email", "attempt": 1, "trace_id": "...", "span_id": "..."}

From `job_id` on only where a job runs: in its handler, in what that calls, and in its threads that take contexts along
(asyncio's tasks, asyncio.to_thread). `exception` and `stack` hold all lines in one string. Everything beyond ASCII, and
every control character, is escaped; texts are cut at MAX_MESSAGE and MAX_EXCEPTION characters.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .context import RUNNING

MAX_NAME = 400
MAX_MESSAGE = 8 * 1024
MAX_EXCEPTION = 16 * 1024
CUT = " ... "

SpanIds = Callable[[], tuple[str, str] | None]


class JsonFormatter(logging.Formatter):
    """`span_ids`: of the current trace and span, as hexadecimal digits, if there is one."""

    def __init__(self, span_ids: SpanIds | None = None) -> None:
        super().__init__()
        self._span_ids = span_ids

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": _cut(record.name, MAX_NAME),
            "process": record.process,
            "message": _cut(message_of(record), MAX_MESSAGE),
            **self._run(record),
        }
        if record.exc_info:
            line["exception"] = _cut(self.formatException(record.exc_info), MAX_EXCEPTION)
        if record.stack_info:
            line["stack"] = _cut(record.stack_info, MAX_EXCEPTION)
        return json.dumps(line).replace("\x7f", r"\u007f")  # the one control character that JSON leaves alone

    def _run(self, record: logging.LogRecord) -> dict[str, object]:
        """The job whose run wrote it: of the record, where the task's own logger made it, else the current one."""
        run = RUNNING.get()
        given: dict[str, Any] = record.__dict__
        about = {
            "job_id": given.get("job", run and run.job_id),
            "queue": given.get("queue", run and run.queue),
            "task": given.get("task", run and run.task),
            "attempt": given.get("attempt", run and run.attempt),
        }
        ids = self._span_ids() if self._span_ids is not None else None
        if ids is not None:
            about["trace_id"], about["span_id"] = ids
        elif run is not None and run.traceparent is not None:
            about["trace_id"] = run.traceparent[3:35]
        return {name: _plain(value) for name, value in about.items() if value is not None}


def message_of(record: logging.LogRecord) -> str:
    """With its arguments, where they fit."""
    try:
        return record.getMessage()
    except Exception as error:  # the caller's own values: what they raise must not take the line, or others, with it
        said = repr(record.msg) if isinstance(record.msg, str) else f"a {type(record.msg).__name__}"
        return f"{said} (its arguments do not fit: {type(error).__name__})"


def _plain(value: object) -> object:
    """What somebody else's `extra` holds under our names may be anything."""
    try:
        text = str(value)
    except Exception as error:  # as above
        return f"a {type(value).__name__} ({type(error).__name__})"
    return value if isinstance(value, int) else _cut(text, MAX_NAME)


def _cut(text: str, limit: int) -> str:
    """The beginning and, of what is too long, the end: that of a traceback says most."""
    if len(text) > limit:
        kept = (limit - len(CUT)) // 2
        text = text[:kept] + CUT + text[-kept:]
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()  # no half of a surrogate pair
