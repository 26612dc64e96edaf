"""How dead letters look in a terminal: hostile bytes all through, so that nothing is shown but printable characters."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..dead_letter import DeadLetter
from .job_page import span
from .screen import printable, safe, table

SHOWN_BYTES = 4096
LINE_BYTES = 16


def letter_table(letters: Sequence[DeadLetter], *, now: int) -> Table:
    made = table("id", "age", "reason", "from", "size", "why", right=("age", "size"), whole=("id", "why"))
    for letter in letters:
        made.add_row(
            safe(letter.id),
            safe(None if letter.at is None else span(now - letter.at), "dim"),
            safe(letter.reason, "red"),
            safe(f"{letter.exchange} {letter.routing_key}"[:100]),
            safe(letter.size),
            safe(f"{letter.path} {letter.detail}".strip()[:300]),
        )
    return made


def letter_page(letter: DeadLetter) -> RenderableType:
    fields = Table.grid(padding=(0, 2))
    fields.add_column(style="bold", no_wrap=True)
    fields.add_column(overflow="fold")
    given = {name: value for name, value in letter.properties.items() if name != "headers"}
    rows: list[tuple[str, Any]] = [
        ("id", letter.id),
        ("reason", letter.reason),
        ("detail", letter.detail or None),
        ("path", letter.path or None),
        ("time", None if letter.at is None else _moment(letter.at)),
        ("exchange", letter.exchange),
        ("routing key", letter.routing_key),
        *given.items(),
        *((f"header {name}"[:60], value) for name, value in _headers(letter).items()),
        ("size", f"{letter.size} bytes" + ("" if letter.complete else f", of which {len(letter.body)} were kept")),
    ]
    for name, value in rows:
        if value is not None:
            fields.add_row(safe(name), safe(value))
    return Group(fields, "", Text(_body(letter.body), overflow="fold"))


def as_data(letter: DeadLetter, *, body: bool = False) -> dict[str, Any]:
    """For --json. `body`: as text where it is UTF-8, and always in base64."""
    data: dict[str, Any] = {
        "id": letter.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "path": letter.path,
        "time": None if letter.at is None else datetime.fromtimestamp(letter.at / 1000, UTC).isoformat(),
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "size": letter.size,
        "complete": letter.complete,
        "properties": letter.properties,
    }
    if body:
        data["body"] = base64.b64encode(letter.body).decode()
        try:
            data["text"] = letter.body.decode()
        except UnicodeDecodeError:
            data["text"] = None
    return data


def _headers(letter: DeadLetter) -> dict[str, Any]:
    headers = letter.properties.get("headers")
    return headers if isinstance(headers, dict) else {}


def _body(body: bytes) -> str:
    """As text where it is text, else as a hex dump."""
    shown = body[:SHOWN_BYTES]
    rest = f"\n... {len(body) - SHOWN_BYTES} more bytes; --json shows all" if len(body) > SHOWN_BYTES else ""
    try:
        # A character may have been cut in two at the end.
        text = shown.decode(errors="strict" if len(body) <= SHOWN_BYTES else "ignore")
    except UnicodeDecodeError:
        return "\n".join(_hex_line(shown, start) for start in range(0, len(shown), LINE_BYTES)) + rest
    return printable(text, newlines=True) + rest


def _hex_line(data: bytes, start: int) -> str:
    line = data[start : start + LINE_BYTES]
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
    return f"{start:06x}  {line.hex(' '):<{3 * LINE_BYTES}} {text}"


def _moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
