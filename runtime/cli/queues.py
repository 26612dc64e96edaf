"""`callboard queues`: how many jobs are where, and what can be done to a whole queue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from ...metadata.contract import Counts, Inspection, QueueControl
from ...metadata.job import State
from ..queue import Queue
from .failures import USAGE, CommandFailed, tell
from .options import AsJson, Broker, Given, Namespace, StoreUrl, make_remote_app, opened_store
from .screen import count_text, print_json, print_lines, safe, show, table

T = TypeVar("T")

_COLUMNS = ("waiting", "delayed", "active", "completed", "failed", "unpublished")
_STYLES = {
    "waiting": "cyan",
    "delayed": "blue",
    "active": "yellow",
    "completed": "green",
    "failed": "red",
    "unpublished": "magenta",
}

QueueName = Annotated[str, typer.Argument(metavar="QUEUE")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

queues_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")


@queues_app.callback()
def queues(
    context: typer.Context,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Jobs by queue and state; pause, resume and empty queues.

    Without a sub-command: a table of all queues, which costs the store the same for 10 jobs as for 10 million.
    "unpublished" are waiting jobs not known to be sent to the broker yet: more than a few for more than a second or two
    means that the broker or the recovery actor is away.

    \b
    callboard queues
    callboard queues pause emails
    callboard queues clean emails --state failed --older-than 86400 --yes

    Exit codes: 0 done, 1 there is no such queue, 2 usage or not confirmed, 69 store or broker unavailable.
    """
    given = Given(broker=broker, store=store, namespace=namespace)
    context.obj = given
    if context.invoked_subcommand is not None:
        return
    counts = asyncio.run(_counts(given))
    if as_json:
        print_json([{"queue": name, **msgspec.to_builtins(count)} for name, count in counts.items()])
        return
    made = table("queue", *_COLUMNS, "paused", right=_COLUMNS, whole=("queue",))
    for name, count in counts.items():
        cells = (count_text(getattr(count, column), _STYLES[column]) for column in _COLUMNS)
        made.add_row(safe(name), *cells, safe("paused" if count.paused else "", "bold yellow"))
    if counts:
        show(made)
    else:
        tell("no queue is known yet: one is with its first job or worker")


@queues_app.command()
def pause(
    context: typer.Context,
    queue: QueueName,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Let no job of the queue start from now on; running ones run on."""
    _change(context, queue, Given(broker=broker, store=store, namespace=namespace), lambda one: one.pause())
    _report(as_json, queue, "is paused", {"paused": True})


@queues_app.command()
def resume(
    context: typer.Context,
    queue: QueueName,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Let jobs start again."""
    _change(context, queue, Given(broker=broker, store=store, namespace=namespace), lambda one: one.resume())
    _report(as_json, queue, "goes on", {"paused": False})


@queues_app.command()
def drain(
    context: typer.Context,
    queue: QueueName,
    delayed: Annotated[bool, typer.Option("--delayed", help="Remove delayed jobs too.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Remove all jobs that wait for a worker; running ones run on. Prints the removed jobs' ids."""
    _confirm(f"Remove all waiting{' and delayed' if delayed else ''} jobs of {queue}?", yes)
    given = Given(broker=broker, store=store, namespace=namespace)
    _removed(as_json, queue, _change(context, queue, given, lambda one: one.drain(include_delayed=delayed)))


@queues_app.command()
def clean(
    context: typer.Context,
    queue: QueueName,
    state: Annotated[
        State, typer.Option(metavar="STATE", help="Of the jobs to remove; any but active.")
    ] = State.COMPLETED,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Only jobs in that state for longer than this.")
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many, the oldest first; 0: all.")] = 0,
    yes: Yes = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Remove jobs in one state. Prints the removed jobs' ids."""
    _confirm(f"Remove the {state.value} jobs of {queue}?", yes)
    given = Given(broker=broker, store=store, namespace=namespace)
    _removed(as_json, queue, _change(context, queue, given, lambda one: one.clean_jobs(older_than, limit, state.value)))


@queues_app.command()
def obliterate(
    context: typer.Context,
    queue: QueueName,
    force: Annotated[bool, typer.Option("--force", help="Though jobs run: they are asked to cancel.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Remove the queue and everything in it, its broker queue included. Prints how many jobs that were.

    While a worker serves the queue, or one of its jobs runs, the emptied queue stays: call it again later.
    """
    _confirm(f"Remove the queue {queue} and everything in it?", yes)

    async def work(one: Queue) -> tuple[int, bool]:
        try:
            removed = await one.obliterate(force=force)
        except RuntimeError as error:  # it has running jobs
            raise CommandFailed(f"{error}: callboard queues obliterate {queue} --force") from None
        return removed, queue in await one.app.connections.store.get(QueueControl).queues()

    removed, stays = _change(context, queue, Given(broker=broker, store=store, namespace=namespace), work)
    end = "the queue stays as long as a worker serves it or a job runs" if stays else "the queue is gone"
    _report(as_json, queue, f"had {removed} jobs, which are removed; {end}", {"removed": removed, "gone": not stays})


async def _counts(given: Given) -> Mapping[str, Counts]:
    async with opened_store(given) as store:
        names = await store.get(QueueControl).queues()
        return await store.get(Inspection).counts(names) if names else {}


def _change(context: typer.Context, queue: str, given: Given, work: Callable[[Queue], Awaitable[T]]) -> T:
    app = make_remote_app(None, given.under(context))

    async def main() -> T:
        async with app:
            known = await app.connections.store.get(QueueControl).queues()
            if queue not in known:
                raise CommandFailed(f"there is no queue {queue!r}; known are: {', '.join(known) or 'none'}")
            return await work(app.queue(queue))

    return asyncio.run(main())


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandFailed("this removes jobs, and there is no terminal to ask on: repeat it with --yes", code=USAGE)
    if not typer.confirm(question, err=True):
        raise CommandFailed("nothing was changed", code=USAGE)


def _report(as_json: bool, queue: str, text: str, told: Mapping[str, Any]) -> None:
    if as_json:
        print_json({"queue": queue, **told})
    else:
        print(f"{queue} {text}")


def _removed(as_json: bool, queue: str, ids: list[str]) -> None:
    if as_json:
        print_json({"queue": queue, "removed": ids})
        return
    print_lines(ids)
    tell(f"removed {len(ids)} jobs of {queue}")
