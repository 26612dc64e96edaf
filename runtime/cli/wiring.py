"""`callboard wiring`: who talks to whom."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ..wiring import as_data, as_mermaid, as_text, find_wiring
from .options import AsJson
from .screen import print_json


class Format(StrEnum):
    TEXT = "text"
    MERMAID = "mermaid"
    JSON = "json"


def wiring(
    form: Annotated[Format, typer.Option("--format", help="mermaid: for a Markdown page.")] = Format.TEXT,
    as_json: AsJson = False,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Of the exchanges and queues.")] = "callboard",
) -> None:
    """Draw exchanges, queues, actors and the capabilities they require, and which stores offer these.

    Drawn from what the installed actors declare; needs no server.
    """
    found = find_wiring(namespace)
    if as_json or form is Format.JSON:
        print_json(as_data(found))
    elif form is Format.MERMAID:
        print(as_mermaid(found))
    else:
        print(as_text(found))
