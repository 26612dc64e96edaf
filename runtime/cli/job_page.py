"""How jobs look in a terminal. Their names, arguments and errors are hostile text: see screen.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..job_view import Attempt, JobInfo
from .screen import printable, safe, state_text, table

MAX_SHOWN = 4000  # characters of one value; --json shows all
ID_WIDTH = 32  # of an id that Callboard made


def job_table(jobs: Sequence[JobInfo], *, now: int) -> Table:
    made = table("id", "task", "state", "attempts", "age", right=("attempts", "age"), whole=("id",))
    made.columns[0].min_width = max([len(job.id) for job in jobs if len(job.id) <= ID_WIDTH], default=2)
    for job in jobs:
        created = job.created_at.timestamp() * 1000
        made.add_row(
            safe(job.id), safe(job.task), state_text(job.state), safe(job.attempts), safe(span(now - created), "dim")
        )
    return made


def job_page(job: JobInfo, *, progress: Any, traceback: bool) -> RenderableType:
    """Everything about one job; lines without a value are left out."""
    fields = Table.grid(padding=(0, 2))
    fields.add_column(style="bold", no_wrap=True)
    fields.add_column(overflow="fold")
    for name, value in _fields(job, progress):
        if value is not None:
            fields.add_row(name, value if isinstance(value, Text) else safe(_cut(value)))
    parts: list[RenderableType] = [fields]
    if job.history:
        parts += ["", _history(job.history)]
    if traceback and job.error is not None:
        lines = printable(job.error.traceback or "no traceback was recorded", newlines=True)
        parts += ["", Text(lines, style="red", overflow="fold")]
    return Group(*parts)


def _fields(job: JobInfo, progress: Any) -> Sequence[tuple[str, str | Text | None]]:
    return (
        ("id", job.id),
        ("queue", job.queue),
        ("task", job.task),
        ("state", state_text(job.state)),
        ("arguments", _json(job.args)),
        ("", _json(job.kwargs) if job.kwargs else None),
        ("meta", _json(job.meta) if job.meta else None),
        ("priority", str(job.priority)),
        ("created", _moment(job.created_at)),
        ("due", _moment(job.run_at)),
        ("expires", _moment(job.expires_at)),
        ("claimed", _moment(job.claimed_at)),
        ("finished", _moment(job.finished_at)),
        ("attempts", f"{job.attempts}, of which {job.failures} failed and {job.stalled} stalled"),
        ("dispatch", f"{job.dispatch}, {'sent' if job.published else 'not known to be sent'}"),
        ("fence", str(job.fence) if job.fence else None),
        ("worker", job.worker),
        ("held", "by the queue's pause" if job.held else None),
        ("parked", _moment(job.parked_at)),
        ("cancelling", "asked for" if job.cancel_requested else None),
        ("deduplication", job.deduplication_id),
        ("progress", None if progress is None else _json(progress)),
        ("result", _json(job.result) if job.state == "completed" else None),
        ("error", None if job.error is None else safe(_cut(f"{job.error.type}: {job.error.message}"), "red")),
    )


def _history(history: Sequence[Attempt]) -> Table:
    made = table(
        "attempt",
        "dispatch",
        "outcome",
        "started",
        "took",
        "worker",
        "why",
        right=("attempt", "dispatch", "took"),
        whole=("why",),
    )
    for entry in history:
        why = entry.reason or ("" if entry.error is None else f"{entry.error.type}: {entry.error.message}")
        took = None if entry.started_at is None or entry.ended_at is None else entry.ended_at - entry.started_at
        made.add_row(
            safe(entry.attempt or None),
            safe(entry.dispatch or None),
            safe(entry.outcome),
            safe(None if entry.started_at is None else f"{_utc(entry.started_at):%H:%M:%S}"),
            safe(None if took is None else span(took)),
            safe(entry.worker[:8]),
            safe(_cut(why)),
        )
    return made


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[:MAX_SHOWN]}... ({len(text)} characters; --json shows all)"


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def span(milliseconds: float) -> str:
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    for unit, size, limit in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
