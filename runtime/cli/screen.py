"""What is printed: tables for people, JSON for programs, and hostile text made harmless in both.

Names, arguments, results and errors come from whoever could make a job. Nothing of theirs reaches a terminal before
`printable` has escaped what is not a printable character, and rich never reads it as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 4096  # columns where the output is no terminal: nothing is folded or cut for programs that read it

STATE_STYLES = {
    "waiting": "cyan",
    "delayed": "blue",
    "waiting-children": "blue",
    "active": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
    "expired": "magenta",
}


def printable(text: str, *, newlines: bool = False) -> str:
    r"""The text with every character that a terminal could act on written as an escape, such as \x1b; `newlines`: but
    for line feeds."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (newlines and c == "\n") else _escape(c) for c in text)


def _escape(character: str) -> str:
    short = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character)
    if short is not None:
        return short
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(value: object, style: str = "") -> Text:
    """A table's cell; nothing for None."""
    return Text("" if value is None else printable(str(value)), style=style)


def state_text(state: str) -> Text:
    return safe(state, STATE_STYLES.get(state, ""))


def count_text(count: int, style: str = "") -> Text:
    """A number; a zero keeps quiet."""
    return Text(f"{count:,}", style=style if count else "dim")


def console() -> Console:
    """For stdout as it is now; colours only where it is a terminal."""
    return Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False
    )


def show(*parts: RenderableType) -> None:
    """Print to stdout. Into a pipe without the spaces that tables are filled up with."""
    screen = console()
    with screen.capture() as captured:
        screen.print(*parts, sep="\n")
    text = captured.get()
    print(text if screen.is_terminal else "\n".join(line.rstrip() for line in text.split("\n")), end="")


def table(*columns: str, right: Iterable[str] = (), whole: Iterable[str] = ()) -> Table:
    """An empty table. `right`: columns of numbers; `whole`: columns whose values are folded, never cut."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold" if column in whole else "ellipsis",
            no_wrap=column not in whole,
        )
    return made


def print_json(value: Any) -> None:
    """One JSON document; everything beyond ASCII is escaped, so that it is safe on a terminal too."""
    print(json.dumps(value, indent=2))


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(printable(line))
