"""`callboard wiring`: who talks to whom."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ..asyncapi import as_asyncapi
from ..wiring import as_data, as_mermaid, as_text, find_wiring
from .options import AsJson
from .screen import print_json


class Format(StrEnum):
    TEXT = "text"
    MERMAID = "mermaid"
    JSON = "json"
    ASYNCAPI = "asyncapi"


def wiring(
    form: Annotated[
        Format,
        typer.Option("--format", help="mermaid: for a Markdown page; asyncapi: with the schemas of all messages."),
    ] = Format.TEXT,
    as_json: AsJson = False,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Of the exchanges and queues.")] = "callboard",
) -> None:
    """Draw exchanges, queues, actors and the capabilities they require, and which stores offer these.

    Drawn from what the installed actors declare; needs no server.
    """
    found = find_wiring(namespace)
    if form is Format.JSON or (as_json and form is not Format.ASYNCAPI):
        print_json(as_data(found))
    elif form is Format.ASYNCAPI:
        print_json(as_asyncapi(found, namespace=namespace))
    elif form is Format.MERMAID:
        print(as_mermaid(found))
    else:
        print(as_text(found))
