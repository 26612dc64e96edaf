"""`callboard schedules add` and `update`: what a schedule is, said with options."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Annotated, Any

import typer

from ...metadata.schedule import NewSchedule
from ..app import Callboard
from ..errors import ConfigurationError
from ..options import CallOptions
from ..repeatable_info import RepeatableInfo, info_of
from ..schedule_change import changed, difference, make_trigger
from ..schedule_record import ReadSchedule, read_new
from ..triggers import At, Policy, preview
from ..triggers.aliases import moment_in
from ..triggers.codec import POLICY_MEMBERS
from ..triggers.grid import from_ms
from .enqueue import read_json
from .failures import CommandFailed, tell
from .options import AppReference, AsJson, Broker, Given, Namespace, StoreUrl, make_app, make_remote_app, refuse_memory
from .schedules import InQueue, ScheduleId, find_schedule, read_store, schedules_app, schedules_of
from .screen import print_json, print_lines

__all__ = ["schedules_app"]

_TIMING, _POLICY, _JOBS = "When", "What becomes of late ones and overlaps", "Its jobs"
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_INTERVAL = re.compile(r"\A(\d+(?:\.\d+)?)([smhdw]?)\Z")
NOTHING = "none"
PREVIEWED = 3


def _option(*names: str, panel: str, metavar: str, help: str) -> Any:
    return typer.Option(*names, rich_help_panel=panel, metavar=metavar, help=help)


Every = Annotated[
    str | None, _option("--every", panel=_TIMING, metavar="INTERVAL", help="Such as 90, 90s, 15m, 2h, 1d.")
]
CronText = Annotated[
    str | None, _option("--cron", panel=_TIMING, metavar="EXPRESSION", help="Such as '0 9 * * mon-fri'; 5 or 6 fields.")
]
AtText = Annotated[str | None, _option("--at", panel=_TIMING, metavar="MOMENT", help="Once, such as 2030-01-01T09:00.")]
Zone = Annotated[
    str | None, _option("--tz", panel=_TIMING, metavar="ZONE", help="Of --cron, and of moments without an offset.")
]
Start = Annotated[str | None, _option("--start", panel=_TIMING, metavar="MOMENT", help="Nothing before it.")]
End = Annotated[str | None, _option("--end", panel=_TIMING, metavar="MOMENT", help="Nothing after it.")]
Jitter = Annotated[
    str | None, _option("--jitter", panel=_TIMING, metavar="INTERVAL", help="Put each off by up to that.")
]
Grace = Annotated[
    str | None,
    _option("--misfire-grace", panel=_POLICY, metavar="INTERVAL", help="Later ones are missed; none: never."),
]
Coalesce = Annotated[
    bool | None,
    typer.Option("--coalesce/--no-coalesce", rich_help_panel=_POLICY, help="One run in place of several due ones."),
]
CatchUp = Annotated[
    int | None, _option("--catch-up", panel=_POLICY, metavar="N", help="With --no-coalesce: at most so many.")
]
Instances = Annotated[
    str | None, _option("--max-instances", panel=_POLICY, metavar="N", help="So many at a time; none: any number.")
]
Overlap = Annotated[
    str | None, _option("--overlap", panel=_POLICY, metavar="WAY", help="Beyond that: skip, queue, cancel.")
]
Queued = Annotated[int | None, _option("--max-queued", panel=_POLICY, metavar="N", help="With --overlap queue.")]
Args = Annotated[str | None, _option("--args", panel=_JOBS, metavar="JSON", help="An array, such as '[\"a@b.c\"]'.")]
Kwargs = Annotated[str | None, _option("--kwargs", panel=_JOBS, metavar="JSON", help="An object.")]
Priority = Annotated[int | None, _option("--priority", panel=_JOBS, metavar="N", help="1 (first) to 10 (last).")]
Retries = Annotated[int | None, _option("--retries", panel=_JOBS, metavar="N", help="Runs after the first that fails.")]
Timeout = Annotated[str | None, _option("--timeout", panel=_JOBS, metavar="INTERVAL", help="That a run may take.")]
Ttl = Annotated[
    str | None, _option("--ttl", panel=_JOBS, metavar="INTERVAL", help="That a job may wait for its start.")
]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="For people.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would become of it, and change nothing.")]


@schedules_app.command()
def add(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's registered name, such as reports.build.")],
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Default: the task's name.")] = None,
    queue: Annotated[
        str | None,
        typer.Option("--queue", "-q", metavar="NAME", help="Default: the task's, where --app is given, else default."),
    ] = None,
    every: Every = None,
    cron: CronText = None,
    at: AtText = None,
    tz: Zone = None,
    start: Start = None,
    end: End = None,
    jitter: Jitter = None,
    misfire_grace: Grace = None,
    coalesce: Coalesce = None,
    catch_up: CatchUp = None,
    max_instances: Instances = None,
    overlap: Overlap = None,
    max_queued: Queued = None,
    args: Args = None,
    kwargs: Kwargs = None,
    priority: Priority = None,
    retries: Retries = None,
    timeout: Timeout = None,
    ttl: Ttl = None,
    name: Name = None,
    replace: Annotated[bool, typer.Option("--replace", help="Change what has this id already.")] = False,
    dry_run: DryRun = False,
    app: AppReference = None,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Make a schedule. Prints its id and its next runs.

    \b
    callboard schedules add reports.build -q reports --cron '0 9 * * mon-fri' --tz Europe/Berlin
    callboard schedules add emails.digest -q emails --every 15m --kwargs '{"to": "a@b.c"}' --id digest-a

    Exit codes: 0 made, 1 the id is taken, 2 usage, 69 store or broker unavailable.
    """
    given = Given(broker=broker, store=store, namespace=namespace)
    made = make_remote_app(app, given)
    if app is not None:
        queue = queue or made.find_task(task).declared.queue
    if (every, cron, at) == (None, None, None):
        raise ConfigurationError("when does it occur? give one of --every, --cron and --at")
    timing = _timing(every=every, cron=cron, at=at, tz=tz, start=start, end=end, jitter=jitter)
    new = made.queue(queue or "default").new_schedule(
        task,
        make_trigger(**timing),
        id=id,
        args=read_json("--args", args or "[]", list),
        kwargs=read_json("--kwargs", kwargs or "{}", dict),
        options=CallOptions.parse(
            priority=priority, retries=retries, timeout=_interval("--timeout", timeout), ttl=_interval("--ttl", ttl)
        ),
        policy=Policy.create(**_policy(misfire_grace, coalesce, catch_up, max_instances, overlap, max_queued)),
        name=name,
    )
    asyncio.run(_add(made, given, new, replace=replace, dry_run=dry_run))
    _tell_new(made, read_new(new), as_json=as_json, dry_run=dry_run)


@schedules_app.command()
def update(
    id: ScheduleId,
    queue: InQueue = None,
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Another task.")] = None,
    every: Every = None,
    cron: CronText = None,
    at: AtText = None,
    tz: Zone = None,
    start: Start = None,
    end: End = None,
    jitter: Jitter = None,
    misfire_grace: Grace = None,
    coalesce: Coalesce = None,
    catch_up: CatchUp = None,
    max_instances: Instances = None,
    overlap: Overlap = None,
    max_queued: Queued = None,
    args: Args = None,
    kwargs: Kwargs = None,
    priority: Priority = None,
    retries: Retries = None,
    timeout: Timeout = None,
    ttl: Ttl = None,
    name: Name = None,
    dry_run: DryRun = False,
    app: AppReference = None,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Change what the options name, and leave the rest. Prints each change, as `member: before -> after`.

    The next run moves only if the trigger changes; a paused schedule stays paused.

    Exit codes: 0 changed, or nothing to change, 1 there is no such schedule, 2 usage, 69 store or broker unavailable.
    """
    given = Given(broker=broker, store=store, namespace=namespace)
    changes = _timing(every=every, cron=cron, at=at, tz=tz, start=start, end=end, jitter=jitter)
    changes |= _policy(misfire_grace, coalesce, catch_up, max_instances, overlap, max_queued)
    plain: dict[str, Any] = {"task_id": task, "priority": priority, "retries": retries, "name": name}
    plain |= {"timeout": _interval("--timeout", timeout), "ttl": _interval("--ttl", ttl)}
    changes |= {member: value for member, value in plain.items() if value is not None}
    if args is not None:
        changes["args"] = read_json("--args", args, list)
    if kwargs is not None:
        changes["kwargs"] = read_json("--kwargs", kwargs, dict)
    if not changes:
        raise ConfigurationError("nothing to change is given; see callboard schedules update --help")
    made = make_app(app, given)
    refuse_memory(made.settings)
    place, differing = asyncio.run(_update(made, given, queue, id, changes, dry_run=dry_run))
    if as_json:
        told = {member: {"before": before, "after": after} for member, (before, after) in differing.items()}
        print_json({"queue": place, "id": id, "dry_run": dry_run, "changes": told})
        return
    print_lines([f"{member}: {_shown(before)} -> {_shown(after)}" for member, (before, after) in differing.items()])
    if not differing:
        tell("it is like that already")
    elif dry_run:
        tell("nothing was changed")


async def _add(app: Callboard, given: Given, new: NewSchedule, *, replace: bool, dry_run: bool) -> None:
    async def known(store: Any) -> bool:
        (record,) = await schedules_of(store).get(new.queue, [new.id])
        return record is not None

    if not replace and await read_store(given, known):
        raise CommandFailed(
            f"queue {new.queue!r} has a schedule {new.id!r} already; give this one another --id, change that one with "
            "callboard schedules update, or repeat this with --replace"
        )
    if not dry_run:
        async with app:
            await app.queue(new.queue).upsert_schedules([new])


async def _update(
    app: Callboard, given: Given, queue: str | None, id: str, changes: dict[str, Any], *, dry_run: bool
) -> tuple[str, dict[str, tuple[Any, Any]]]:
    if dry_run:  # with the store alone, as all that changes nothing
        read = await read_store(given, lambda store: find_schedule(store, queue, id))
        return read.record.queue, difference(read, changed(app, read, changes))
    async with app:
        place = (await find_schedule(app.connections.store, queue, id)).record.queue
        return place, await app.queue(place).update_repeatable(id, changes)


def _tell_new(app: Callboard, read: ReadSchedule, *, as_json: bool, dry_run: bool) -> None:
    moments = [moment.isoformat() for moment in preview(read.trigger, from_ms(app.clock.now()), PREVIEWED)]
    if as_json:
        info: RepeatableInfo = info_of(read)
        print_json({"queue": info.queue, "id": info.id, "dry_run": dry_run, "job_def": info.job_def, "next": moments})
        return
    print_lines([read.record.id])
    if moments:
        tell(f"next: {', '.join(moments)}" + ("; nothing was made" if dry_run else ""))
    else:
        tell("it never occurs: its time is over" + ("; nothing was made" if dry_run else ""))


def _timing(
    *,
    every: str | None,
    cron: str | None,
    at: str | None,
    tz: str | None,
    start: str | None,
    end: str | None,
    jitter: str | None,
) -> dict[str, Any]:
    """Members of `make_trigger` and of `Queue.update_repeatable`, without those that were not given."""
    zone = tz or "UTC"
    moments = {"start": start, "end": end}
    window: dict[str, Any] = {
        name: moment_in(text, zone, f"--{name}") for name, text in moments.items() if text is not None
    }
    if jitter is not None:
        window["jitter"] = _interval("--jitter", jitter)
    if at is not None:
        if every is not None or cron is not None or start is not None or end is not None:
            raise ConfigurationError("--at is one moment: it goes with --tz and --jitter alone")
        return {"trigger": At(_moment(at, zone), jitter=window.get("jitter", 0))}
    given = {"every": _interval("--every", every), "cron": cron, "timezone": tz if every is None else None}
    return {**{name: value for name, value in given.items() if value is not None}, **window}


def _moment(text: str, zone: str) -> datetime:
    return moment_in(text, zone, "--at")


def _policy(
    misfire_grace: str | None,
    coalesce: bool | None,
    catch_up: int | None,
    max_instances: str | None,
    overlap: str | None,
    max_queued: int | None,
) -> dict[str, Any]:
    instances = max_instances
    if instances not in (None, NOTHING) and not str(instances).isdecimal():
        raise ConfigurationError(f"--max-instances {instances!r:.60}: must be a whole number, or {NOTHING}")
    values = (
        None if misfire_grace in (None, NOTHING) else _interval("--misfire-grace", misfire_grace),
        coalesce,
        catch_up,
        None if instances in (None, NOTHING) else int(str(instances)),
        overlap,
        max_queued,
    )
    cleared = {"misfire_grace": misfire_grace == NOTHING, "max_instances": instances == NOTHING}
    named = dict(zip(POLICY_MEMBERS, values, strict=True))
    return {name: value for name, value in named.items() if value is not None or cleared.get(name)}


def _interval(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    match = _INTERVAL.match(text)
    if match is None:
        raise ConfigurationError(
            f"{option} {text!r:.60}: must be seconds, or a number with s, m, h, d or w, such as 15m"
        )
    return float(match[1]) * _UNITS[match[2]]


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{value}"
