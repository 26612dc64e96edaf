"""`callboard dead`: what could not be used, and what becomes of it."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ...brokers.contract import BODY_KEPT, BODY_LIMIT
from ...brokers.message import Delivery
from ...brokers.topology import Names
from ..clock import SystemClock
from ..dead_letter import DeadLetter, Filter
from ..dead_letters import lifetime
from ..dead_queue import DeadQueue
from ..duration import MAX_SECONDS
from ..errors import ConfigurationError
from ..registry import make_broker
from ..settings import load_settings
from ..urls import scheme_of
from .dead_page import as_data, letter_page, letter_table
from .failures import FAILURE, USAGE, CommandFailed, tell
from .options import AsJson, Broker, Given, Namespace, StoreUrl
from .screen import count_text, print_json, safe, show, table

MAX_PAGE = 1000

Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...", help="Letters, by their ids or how those begin; to change them, how one alone does."
    ),
]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", "-r", metavar="WORD", help="Put aside for this; may be repeated.")
]
RoutingKey = Annotated[
    str | None,
    typer.Option("--queue", "-q", metavar="NAME", help="Published with this routing key: a job queue's name."),
]
Exchange = Annotated[str | None, typer.Option(metavar="NAME", help="Published to this exchange.")]
OlderThan = Annotated[
    float | None, typer.Option(min=0, max=MAX_SECONDS, metavar="SECONDS", help="Put aside longer ago than this.")
]
NewerThan = Annotated[
    float | None, typer.Option(min=0, max=MAX_SECONDS, metavar="SECONDS", help="Put aside less long ago than this.")
]
Containing = Annotated[str | None, typer.Option(metavar="TEXT", help="With this text in the body.")]
All = Annotated[bool, typer.Option("--all", help="Every letter; needed where nothing else says which.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

dead_app = typer.Typer(
    help="Dead letters: list, show, requeue, delete and export what could not be used.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@dead_app.command("list")
def list_letters(
    ids: Ids = None,
    reason: Reasons = None,
    queue: RoutingKey = None,
    exchange: Exchange = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    containing: Containing = None,
    counts: Annotated[bool, typer.Option("--counts", help="Only how many there are for each reason.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, metavar="N", help="The newest N, up to 1000.")] = 50,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """List dead letters, newest first. Looking takes nothing away.

    \b
    callboard dead list --counts
    callboard dead list --reason not-json --queue emails
    """
    wanted = _filter(ids, reason, queue, exchange, older_than, newer_than, containing)
    found: deque[DeadLetter] = deque(maxlen=limit)
    reasons: dict[str, int] = {}

    def see(letter: DeadLetter, _: Delivery) -> bool:
        if wanted.fits(letter):
            found.append(letter)
            reasons[letter.reason] = reasons.get(letter.reason, 0) + 1
        return True

    async def main() -> int:
        async with _dead_queue(Given(broker=broker, store=store, namespace=namespace)) as dead:
            return await dead.look(see, body_limit=BODY_KEPT)

    asyncio.run(main())
    letters = sorted(found, key=lambda letter: letter.at or 0, reverse=True)
    by_reason = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    if as_json:
        print_json(by_reason if counts else [as_data(letter) for letter in letters])
    elif not reasons:
        tell("there is no such dead letter" if wanted != Filter() else "there are no dead letters")
    elif counts:
        made = table("reason", "letters", right=("letters",), whole=("reason",))
        for word, count in by_reason.items():
            made.add_row(safe(word), count_text(count))
        show(made)
    else:
        show(letter_table(letters, now=SystemClock().now()))
        if (total := sum(reasons.values())) > len(letters):
            tell(f"{len(letters)} of {total}; see --counts, --reason and --limit")


@dead_app.command("show")
def show_letter(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.")],
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Show one letter: why, when, where it came from with which properties, and its bytes.

    Whatever a terminal could act on is shown as an escape. Exit code 1: there is no such letter, or several.
    """
    wanted = _filter([letter_id])
    letter = asyncio.run(_first(Given(broker=broker, store=store, namespace=namespace), wanted))
    if letter is None:
        raise CommandFailed(f"there is no letter {letter_id!r}")
    if as_json:
        print_json(as_data(letter, body=True))
    else:
        show(letter_page(letter))


@dead_app.command()
def requeue(
    ids: Ids = None,
    reason: Reasons = None,
    queue: RoutingKey = None,
    exchange: Exchange = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    containing: Containing = None,
    every: All = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 10_000,
    rate: Annotated[float, typer.Option(min=0.01, max=100_000, metavar="N", help="At most so many a second.")] = 100.0,
    yes: Yes = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Publish letters again where they came from, as if for the first time. Doing it twice makes no second job.

    Exit code 1: some could not go back, such as those of which only the beginning was kept; they stay.
    """
    wanted = _filter(ids, reason, queue, exchange, older_than, newer_than, containing)
    _confirm(wanted, every, yes, "Requeue")

    async def main() -> tuple[int, list[tuple[str, str]]]:
        async with _dead_queue(Given(broker=broker, store=store, namespace=namespace)) as dead:
            done = await dead.requeue(await _whole(dead, wanted), limit=limit, rate=rate)
            return done.sent, list(done.refused)

    sent, refused = asyncio.run(main())
    if as_json:
        print_json({"requeued": sent, "refused": dict(refused)})
    else:
        print(f"requeued {sent}")
    for letter_id, why in refused:
        tell(f"letter {letter_id} stays: {why}")
    if refused or (ids and not sent):
        raise typer.Exit(FAILURE)


@dead_app.command()
def delete(
    ids: Ids = None,
    reason: Reasons = None,
    queue: RoutingKey = None,
    exchange: Exchange = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    containing: Containing = None,
    every: All = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many, the oldest.")] = 50_000,
    yes: Yes = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Take letters away for good."""
    wanted = _filter(ids, reason, queue, exchange, older_than, newer_than, containing)
    _confirm(wanted, every, yes, "Delete")

    async def main() -> int:
        async with _dead_queue(Given(broker=broker, store=store, namespace=namespace)) as dead:
            return await dead.delete(await _whole(dead, wanted), limit=limit)

    deleted = asyncio.run(main())
    print_json({"deleted": deleted}) if as_json else print(f"deleted {deleted}")
    if ids and not deleted:
        raise typer.Exit(FAILURE)


@dead_app.command()
def export(
    ids: Ids = None,
    reason: Reasons = None,
    queue: RoutingKey = None,
    exchange: Exchange = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    containing: Containing = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: stdout.")] = None,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Write letters as lines of JSON, oldest first, with their bytes in base64. They stay where they are."""
    wanted = _filter(ids, reason, queue, exchange, older_than, newer_than, containing)

    written = 0

    async def main() -> None:
        async with _dead_queue(Given(broker=broker, store=store, namespace=namespace)) as dead:
            # Not before the broker is there: what an earlier export wrote stays where this one cannot begin.
            with nullcontext(sys.stdout) if output is None else output.open("w", encoding="ascii") as to:

                def see(letter: DeadLetter, _: Delivery) -> bool:
                    nonlocal written
                    if wanted.fits(letter):
                        print(json.dumps({**as_data(letter), "body": base64.b64encode(letter.body).decode()}), file=to)
                        written += 1
                    return True

                await dead.look(see, body_limit=BODY_LIMIT)

    try:
        asyncio.run(main())
    except OSError as error:
        if output is None:
            raise
        raise CommandFailed(f"cannot write {str(output)!r}: {error.strerror}") from None
    if output is not None:
        tell(f"wrote {written} letters to {output}")


async def _first(given: Given, wanted: Filter) -> DeadLetter | None:
    found: list[DeadLetter] = []
    async with _dead_queue(given) as dead:
        whole = await _whole(dead, wanted)

        def see(letter: DeadLetter, _: Delivery) -> bool:
            if whole.fits(letter):
                found.append(letter)
            return not found

        await dead.look(see)
    return found[0] if found else None


async def _whole(dead: DeadQueue, wanted: Filter) -> Filter:
    """With whole ids in place of their beginnings. An id goes before those that begin with it: producers give letters
    names like order-1 and order-10. CommandFailed: several letters begin so."""
    if not wanted.ids:
        return wanted
    found: dict[str, set[str]] = {one: set() for one in wanted.ids}

    def see(letter: DeadLetter, _: Delivery) -> bool:
        for one, those in found.items():
            if letter.id.startswith(one):
                those.add(letter.id)
        return True

    await dead.look(see)
    whole: list[str] = []
    for one, those in found.items():
        if one not in those and len(those) > 1:
            raise CommandFailed(f"several begin with {one!r}; give more of it, see callboard dead list {one}")
        whole += [one] if one in those else those
    return msgspec.structs.replace(wanted, ids=(), whole=tuple(whole))


@asynccontextmanager
async def _dead_queue(given: Given) -> AsyncIterator[DeadQueue]:
    """The broker alone: letters can be read while the store is down."""
    settings = load_settings(**given.settings)
    url = settings.broker.get_secret_value()
    if scheme_of(url) == "memory":
        raise ConfigurationError(
            "the broker is memory://, which lives in one process: there is nothing of it to be seen from here; "
            "give --broker or CALLBOARD_BROKER, such as amqp://localhost:5672/"
        )
    names = Names(settings.namespace, settings.queue_type)
    broker = make_broker(url, name=f"{settings.namespace} dead letters")
    await broker.open()
    try:
        yield DeadQueue(broker, names, SystemClock(), lifetime=lifetime(settings))
    finally:
        await broker.close()


def _filter(
    ids: list[str] | None,
    reasons: list[str] | None = None,
    queue: str | None = None,
    exchange: str | None = None,
    older_than: float | None = None,
    newer_than: float | None = None,
    containing: str | None = None,
) -> Filter:
    if "" in (ids or ()):
        raise CommandFailed("an id is empty, and every id begins so; for all letters there is --all", code=USAGE)
    now = SystemClock().now()
    return Filter(
        ids=tuple(ids or ()),
        reasons=tuple(reasons or ()),
        routing_key=queue,
        exchange=exchange,
        older_than=None if older_than is None else now - round(older_than * 1000),
        newer_than=None if newer_than is None else now - round(newer_than * 1000),
        containing=containing,
    )


def _confirm(wanted: Filter, every: bool, yes: bool, verb: str) -> None:
    if wanted.everything and not every:
        raise CommandFailed(f"{verb.lower()} which? Give ids, --reason, --queue ... or --all", code=USAGE)
    if wanted.ids or yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandFailed("nobody is there to confirm; give --yes", code=USAGE)
    if not typer.confirm(
        f"{verb} {'all dead letters' if wanted.everything else 'the dead letters that fit'}?", err=True
    ):
        raise CommandFailed("nothing was done", code=USAGE)
