"""`callboard doctor`: whether a process could work here, and what an operator should know before it does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from ..clock import SystemClock
from ..diagnosis import Finding, Level, diagnose
from .failures import OK
from .options import AppReference, AsJson, Broker, Given, Namespace, StoreUrl, make_app
from .screen import print_json, safe, show, table

WARNINGS, ERRORS = 1, 2

_STYLES = {Level.GOOD: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}


def doctor(
    app: AppReference = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Also read everything that is kept of every queue, and name what does not fit together. Reads only; "
            "takes time and memory with the number of jobs kept.",
        ),
    ] = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Examine the broker and the store.

    Are they reached, which versions are they, may this user do what is needed, do they keep what they accept, does the
    store's clock agree with this one, how long does a message, a question and a write take?

    \b
    callboard doctor
    callboard doctor --audit --json

    It declares the exchanges, as every process does as it starts, sends itself messages through a queue of its own,
    and writes and removes a worker's row in a queue that nobody knows. --audit looks for jobs in the wrong index or in
    none, outbox entries, payloads and deduplication ids without their job, and counts that differ from the records;
    what it names was there in two looks, a second apart.

    Exit codes: 0 all is good, 1 there are warnings, 2 there are errors (or the usage is wrong).
    """
    settings = make_app(app, Given(broker=broker, store=store, namespace=namespace)).settings
    found = asyncio.run(diagnose(settings, SystemClock(), audit=audit))
    code = exit_code(found)
    if as_json:
        levels = Counter(finding.level for finding in found)
        print_json(
            {
                "exit_code": code,
                "warnings": levels[Level.WARNING],
                "errors": levels[Level.ERROR],
                "findings": [msgspec.to_builtins(finding) for finding in found],
            }
        )
    else:
        made = table("", "about", "check", "finding", whole=("about", "finding"))
        for finding in found:
            made.add_row(
                safe(finding.level, _STYLES[finding.level]),
                safe(finding.about),
                safe(finding.check),
                safe(finding.message),
            )
        show(made)
    if code != OK:
        raise typer.Exit(code)


def exit_code(found: Sequence[Finding]) -> int:
    levels = {finding.level for finding in found}
    return ERRORS if Level.ERROR in levels else WARNINGS if Level.WARNING in levels else OK
