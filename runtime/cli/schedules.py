"""`callboard schedules`: what is scheduled, and what can be done to a schedule."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import RenderableType

from ...metadata.contract import QueueControl, Store
from ...metadata.errors import CapabilityMissing
from ...metadata.schedules import Schedules
from ..clock import SystemClock
from ..queue import Queue
from ..repeatable_info import RepeatableInfo, info_of, read_all
from ..schedule_record import ReadSchedule, read_schedule
from ..task_info import SORT_KEYS, TaskScheduleState, selected, task_info
from ..triggers import preview
from ..triggers.grid import from_ms
from .failures import USAGE, CommandFailed, tell
from .options import AsJson, Broker, Given, Namespace, StoreUrl, make_remote_app, opened_store
from .screen import print_json, print_lines, safe, show, table

T = TypeVar("T")

ScheduleId = Annotated[str, typer.Argument(metavar="ID")]
InQueue = Annotated[
    str | None, typer.Option("--queue", "-q", metavar="NAME", help="Its queue; needed where several have the id.")
]
Zone = Annotated[str, typer.Option("--zone", metavar="ZONE", help="Show times in it, such as Europe/Berlin.")]

schedules_app = typer.Typer(
    help="List, show, preview, add, update, pause, resume, run and remove schedules.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@schedules_app.command("list")
def list_schedules(
    queue: Annotated[str | None, typer.Option("--queue", "-q", metavar="NAME", help="Only of this queue.")] = None,
    state: Annotated[
        TaskScheduleState | None, typer.Option("--state", help="Only those that are so.", case_sensitive=False)
    ] = None,
    trigger: Annotated[
        str | None, typer.Option("--trigger", metavar="KIND", help="Only interval, cron, date, and, or.")
    ] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="TEXT", help="Only those with this text in id, name, task, ...")
    ] = None,
    sort_by: Annotated[
        str | None, typer.Option("--sort-by", metavar="KEY", help=f"{', '.join(SORT_KEYS)}; default: queue and id.")
    ] = None,
    descending: Annotated[bool, typer.Option("--desc", help="The other way round.")] = False,
    zone: Zone = "UTC",
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """List schedules."""
    given = Given(broker=broker, store=store, namespace=namespace)
    shown_in = _zone(zone)
    reads = {
        (one.record.queue, one.record.id): one for one in asyncio.run(read_store(given, lambda s: _list(s, queue)))
    }
    snapshots = [task_info(read, store="") for read in reads.values()]
    found = selected(snapshots, schedule_state=state, trigger=trigger, q=query, sort_by=sort_by or "id")
    keys = [(one.executor, one.id) for one in found]
    if sort_by is None:
        keys.sort()
    infos = [info_of(reads[key]) for key in (reversed(keys) if descending else keys)]
    if as_json:
        print_json([info.to_json() for info in infos])
        return
    made = table("id", "queue", "task", "when", "next run", whole=("id", "task", "when"))
    for info in infos:
        cells = (info.id, info.queue, info.task_id, _when(info.job_def), _next(info, shown_in))
        made.add_row(*(safe(cell) for cell in cells))
    if infos:
        show(made)
    elif reads:
        tell(f"none of {len(reads)} schedules is like that")
    else:
        tell("nothing is scheduled" + (f" in queue {queue!r}" if queue else ""))


@schedules_app.command("show")
def show_schedule(
    id: ScheduleId,
    queue: InQueue = None,
    zone: Zone = "UTC",
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Show all that is known of a schedule, and what became of its latest occurrences.

    Exit code 1: there is no such schedule.
    """
    given = Given(broker=broker, store=store, namespace=namespace)
    shown_in = _zone(zone)
    info = info_of(asyncio.run(read_store(given, lambda opened: find_schedule(opened, queue, id))))
    if as_json:
        print_json(info.to_json())
        return
    show(*_page(info, shown_in))


@schedules_app.command("preview")
def preview_schedule(
    id: ScheduleId,
    queue: InQueue = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, metavar="N", help="How many.")] = 10,
    zone: Zone = "UTC",
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Print the next occurrences, whether the schedule is paused or not. Changes nothing."""
    given = Given(broker=broker, store=store, namespace=namespace)
    shown_in = _zone(zone)
    read = asyncio.run(read_store(given, lambda opened: find_schedule(opened, queue, id)))
    moments = [
        moment.astimezone(shown_in).isoformat() for moment in preview(read.trigger, from_ms(SystemClock().now()), count)
    ]
    if as_json:
        print_json(moments)
        return
    print_lines(moments)
    if len(moments) < count:
        tell("no further occurrence comes")


@schedules_app.command()
def pause(
    id: ScheduleId,
    queue: InQueue = None,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Let no occurrence make a job from now on."""
    given = Given(broker=broker, store=store, namespace=namespace)
    name, _ = change_schedule(given, queue, id, lambda one: one.pause_repeatable(id))
    _report(as_json, name, id, "is paused", {"paused": True})


@schedules_app.command()
def resume(
    id: ScheduleId,
    queue: InQueue = None,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Go on from the next occurrence; those of the pause are not made up for."""
    given = Given(broker=broker, store=store, namespace=namespace)
    name, next_run = change_schedule(given, queue, id, lambda one: one.resume_repeatable(id))
    _report(as_json, name, id, f"goes on, next at {_time(next_run, UTC)}", {"paused": False, "next_run": next_run})


@schedules_app.command("run")
def run_now(
    id: ScheduleId,
    queue: InQueue = None,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Make a job of it now, besides its occurrences. Prints the job's id."""
    given = Given(broker=broker, store=store, namespace=namespace)
    name, job = change_schedule(given, queue, id, lambda one: one.run_repeatable(id))
    if as_json:
        print_json({"queue": name, "id": id, "job": job})
    else:
        print_lines([job])


@schedules_app.command()
def remove(
    id: ScheduleId,
    queue: InQueue = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Forget a schedule; its jobs stay. One that code declares comes back when its app starts."""
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise CommandFailed("this removes it, and there is no terminal to ask on: repeat it with --yes", code=USAGE)
    if not yes and not typer.confirm(f"Remove the schedule {id}?", err=True):
        raise CommandFailed("nothing was changed", code=USAGE)
    given = Given(broker=broker, store=store, namespace=namespace)
    name, _ = change_schedule(given, queue, id, lambda one: one.remove_repeatable(id))
    _report(as_json, name, id, "is removed", {"removed": True})


async def read_store(given: Given, work: Callable[[Store], Awaitable[T]]) -> T:
    """With the store alone: nothing is declared, and it works while the broker is down."""
    async with opened_store(given) as store:
        return await work(store)


async def _list(store: Store, queue: str | None) -> list[ReadSchedule]:
    names = await store.get(QueueControl).queues() if queue is None else [queue]
    return [read for name in names for read in await read_all(schedules_of(store), name)]


async def find_schedule(store: Store, queue: str | None, id: str) -> ReadSchedule:
    schedules = schedules_of(store)
    names = await store.get(QueueControl).queues() if queue is None else [queue]
    found = [record for name in names for record in await schedules.get(name, [id]) if record is not None]
    if not found:
        raise CommandFailed(f"there is no schedule {id!r}" + (f" in queue {queue!r}" if queue else ""))
    if len(found) > 1:
        queues = ", ".join(record.queue for record in found)
        raise CommandFailed(f"several queues have a schedule {id!r}; name one with --queue: {queues}", code=USAGE)
    return read_schedule(found[0])


def schedules_of(store: Store) -> Schedules:
    if Schedules not in store.capabilities:
        raise CapabilityMissing(capability=Schedules.__name__, store=store.scheme)
    return store.get(Schedules)


def change_schedule(given: Given, queue: str | None, id: str, work: Callable[[Queue], Awaitable[T]]) -> tuple[str, T]:
    """The schedule's queue, and what the work returned."""
    app = make_remote_app(None, given)

    async def main() -> tuple[str, T]:
        async with app:
            name = (await find_schedule(app.connections.store, queue, id)).record.queue
            return name, await work(app.queue(name))

    return asyncio.run(main())


def _report(as_json: bool, queue: str, id: str, text: str, told: dict[str, Any]) -> None:
    if as_json:
        print_json({"queue": queue, "id": id, **told})
    else:
        print_lines([f"{id} {text}"])


def _page(info: RepeatableInfo, zone: tzinfo) -> list[RenderableType]:
    facts = table("schedule", info.id, whole=(info.id,))
    rows = [
        ("queue", info.queue),
        ("task", info.task_id),
        ("when", _when(info.job_def)),
        ("next run", _next(info, zone)),
        ("args", info.job_def["args"]),
        ("kwargs", info.job_def["kwargs"]),
        ("policy", _members(info.policy)),
        ("occurrences", _members(info.totals) or "none yet"),
        ("computed by", info.engine),
        ("revision", f"{info.revision}, changed {_time(info.updated_at, zone)}"),
    ]
    for name, value in rows:
        facts.add_row(safe(name), safe(value))
    if not info.history:
        return [facts]
    history = table("occurrence", "fate", "how many", "noticed", right=("how many",))
    for one in info.history:
        count = f"{one['count']}" if one["exact"] else f"at least {one['count']}"
        history.add_row(
            safe(_time(one["occurrence"], zone)), safe(one["fate"]), safe(count), safe(_time(one["at"], zone))
        )
    return [facts, history]


def _when(job_def: dict[str, Any]) -> str:
    if "every" in job_def:
        return f"every {job_def['every']:g} s"
    if "cron" in job_def:
        return f"{job_def['cron']}" + ("" if job_def["timezone"] == "UTC" else f" {job_def['timezone']}")
    return _members(job_def["trigger"])


def _members(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _next(info: RepeatableInfo, zone: tzinfo) -> str:
    return "paused" if info.paused else _time(info.next_run, zone)


def _time(seconds: float | None, zone: tzinfo) -> str:
    if seconds is None:
        return "never again"
    return datetime.fromtimestamp(seconds, zone).isoformat(sep=" ", timespec="seconds")


def _zone(name: str) -> ZoneInfo:
    with suppress(ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo(name)
    raise CommandFailed(f"--zone {name!r}: there is no such time zone", code=USAGE)
