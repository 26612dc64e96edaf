"""`callboard jobs`: single jobs, seen and operated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from ...metadata.contract import Cancel, Inspection
from ...metadata.job import Job, State
from ..clock import SystemClock
from ..job_view import view
from ..queue import Queue
from .failures import FAILURE, CommandFailed, tell
from .job_page import job_page, job_table
from .options import AsJson, Broker, Given, Namespace, StoreUrl, make_remote_app, opened_store
from .screen import print_json, print_lines, show

MAX_PAGE = 1000

QueueName = Annotated[str, typer.Option("--queue", "-q", metavar="NAME", help="The queue the jobs are in.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID")]

jobs_app = typer.Typer(
    help="List, show, retry, reschedule, cancel and remove jobs.", no_args_is_help=True, rich_markup_mode="rich"
)


@jobs_app.command("list")
def list_jobs(
    queue: QueueName,
    state: Annotated[
        State | None, typer.Option(metavar="STATE", help="Only jobs in this state; default: all, state by state.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, metavar="N", help="At most so many, up to 1000.")] = 50,
    offset: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out so many first.")] = 0,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """List jobs, newest first.

    \b
    callboard jobs list --queue emails --state failed
    """
    given = Given(broker=broker, store=store, namespace=namespace)
    states = tuple(State) if state is None else (state,)
    total, found = asyncio.run(_list(given, queue, states, offset=offset, limit=limit))
    infos = [view(job) for job in found]
    if as_json:
        print_json([info.to_json() for info in infos])
        return
    if infos:
        show(job_table(infos, now=SystemClock().now()))
    if not total:
        tell(f"queue {queue!r} has no {'job' if state is None else f'{state.value} job'}")
    elif offset + len(infos) < total or offset:
        tell(f"{len(infos)} of {total}; go on with --offset {offset + len(infos)}")


@jobs_app.command("show")
def show_job(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    queue: QueueName,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the error's traceback.")] = False,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Show all that is known of a job: its arguments, result, error and every attempt.

    What comes from the job is escaped where a terminal could act on it. Exit code 1: there is no such job.
    """
    job, progress = asyncio.run(_get(Given(broker=broker, store=store, namespace=namespace), queue, job_id))
    info = view(job)
    if as_json:
        print_json({**info.to_json(), "progress": progress})
    else:
        show(job_page(info, progress=progress, traceback=traceback))


@jobs_app.command()
def retry(
    job_ids: JobIds,
    queue: QueueName,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Run jobs that have ended again, with all their retries. Exit code 1: some could not be."""

    async def work(one: Queue, job_id: str) -> str | None:
        return "sent again" if await one.retry_job(job_id) else None

    _each(job_ids, queue, Given(broker=broker, store=store, namespace=namespace), work, as_json=as_json)


@jobs_app.command()
def cancel(
    job_ids: JobIds,
    queue: QueueName,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Cancel jobs: at once where they wait; where they run, by interrupting them. Exit code 1: some had ended."""

    async def work(one: Queue, job_id: str) -> str | None:
        match await one.cancel_job(job_id):
            case Cancel.CANCELLED:
                return "cancelled"
            case Cancel.REQUESTED:
                return "runs; its worker is asked to interrupt it"
            case _:
                return None

    _each(job_ids, queue, Given(broker=broker, store=store, namespace=namespace), work, as_json=as_json)


@jobs_app.command()
def promote(
    job_ids: JobIds,
    queue: QueueName,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Send delayed jobs to the workers now. Exit code 1: some are not delayed."""

    async def work(one: Queue, job_id: str) -> str | None:
        return "sent" if await one.promote_job(job_id) else None

    _each(job_ids, queue, Given(broker=broker, store=store, namespace=namespace), work, as_json=as_json)


@jobs_app.command()
def reschedule(
    job_ids: JobIds,
    queue: QueueName,
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", help="Due so long from now.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Due at a moment with an offset: RFC 3339.")] = None,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Change when delayed jobs are due. Exit code 1: some are not delayed.

    \b
    callboard jobs reschedule welcome-42 --queue emails --delay 600
    callboard jobs reschedule welcome-42 --queue emails --at 2027-01-01T09:00:00+01:00
    """
    if (delay is None) == (at is None):
        raise typer.BadParameter("give --delay or --at, and not both")
    moment = None if at is None else _moment(at)

    async def work(one: Queue, job_id: str) -> str | None:
        return "rescheduled" if await one.reschedule_delayed(job_id, delay=delay, run_at=moment) else None

    _each(job_ids, queue, Given(broker=broker, store=store, namespace=namespace), work, as_json=as_json)


@jobs_app.command()
def remove(
    job_ids: JobIds,
    queue: QueueName,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Forget jobs that do not run, whatever their state. Exit code 1: some run, or are not known."""

    async def work(one: Queue, job_id: str) -> str | None:
        try:
            return "removed" if await one.remove_job(job_id) else None
        except RuntimeError:  # it runs, which the job's state will say
            return None

    _each(job_ids, queue, Given(broker=broker, store=store, namespace=namespace), work, as_json=as_json)


def _each(
    job_ids: Sequence[str],
    queue: str,
    given: Given,
    work: Callable[[Queue, str], Awaitable[str | None]],
    *,
    as_json: bool,
) -> None:
    """Do it to each job; None from `work`: it could not be done, and the job's state says why."""
    app = make_remote_app(None, given)

    async def main() -> list[dict[str, Any]]:
        async with app:
            one = app.queue(queue)
            told = []
            for job_id in job_ids:
                done = await work(one, job_id)
                state = None if done else await one.get_job_state(job_id)
                why = _unknown(job_id, queue) if state is None else f"job {job_id} in queue {queue} is {state}"
                told.append({"id": job_id, "done": done is not None, "what": done or why})
            return told

    told = asyncio.run(main())
    if as_json:
        print_json(told)
    else:
        print_lines([f"{entry['id']} {entry['what']}" for entry in told if entry["done"]])
    for entry in told:
        if not entry["done"]:
            tell(entry["what"])
    if not all(entry["done"] for entry in told):
        raise typer.Exit(FAILURE)


async def _list(given: Given, queue: str, states: Sequence[State], *, offset: int, limit: int) -> tuple[int, list[Job]]:
    """How many there are in these states, and a page of them."""
    async with opened_store(given) as store:
        inspection = store.get(Inspection)
        counts = (await inspection.counts([queue]))[queue]
        sizes = {state: int(getattr(counts, state.replace("-", "_"))) for state in states}
        found: list[Job] = []
        skip = offset
        for state, size in sizes.items():
            if skip < size and len(found) < limit:
                found += await inspection.page(queue, state, offset=skip, limit=limit - len(found), newest_first=True)
            skip = max(0, skip - size)
        return sum(sizes.values()), found


async def _get(given: Given, queue: str, job_id: str) -> tuple[Job, Any]:
    async with opened_store(given) as store:
        inspection = store.get(Inspection)
        (job,) = await inspection.get(queue, [job_id])
        if job is None:
            raise CommandFailed(_unknown(job_id, queue))
        progress = await inspection.progress(queue, job_id)
        return job, None if progress is None else msgspec.json.decode(progress)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise typer.BadParameter(
            f"--at wants a moment with an offset, such as 2027-01-01T09:00:00+01:00, not {text[:100]!r}"
        )
    return moment


def _unknown(job_id: str, queue: str) -> str:
    return f"there is no job {job_id!r} in queue {queue!r}"
