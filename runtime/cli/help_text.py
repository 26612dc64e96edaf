"""Help pages are the commands' docstrings. Typer keeps their line breaks, which then meet those of the terminal."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer


def unwrap_help(app: typer.Typer) -> None:
    """Give each command its docstring with paragraphs as single lines."""
    for command in app.registered_commands:
        command.help = unwrapped(command.callback)
    if app.registered_callback is not None:
        app.registered_callback.help = unwrapped(app.registered_callback.callback)


def unwrapped(function: Callable[..., Any] | None) -> str:
    """Paragraphs that begin with a line of a single backspace, click's sign for it, stay as they are."""
    paragraphs = inspect.cleandoc((function and function.__doc__) or "").split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else " ".join(p.split("\n")) for p in map(str.strip, paragraphs) if p)
