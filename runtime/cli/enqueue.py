"""`callboard enqueue`: one job from the shell."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from ...metadata.contract import Admission, Enqueued
from ...metadata.job import NewJob
from ..app import Callboard
from ..errors import ConfigurationError, JobUnfinished
from ..handle import JobHandle
from ..options import CallOptions
from .failures import FAILURE, message_of, tell
from .options import AppReference, AsJson, Broker, Given, Namespace, StoreUrl, make_remote_app
from .screen import print_json, printable

SHOWN = 60  # characters of a value that is quoted in a message


def enqueue(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's registered name, such as emails.send.")],
    queue: Annotated[
        str | None,
        typer.Option("--queue", "-q", metavar="NAME", help="Default: the task's, where --app is given, else default."),
    ] = None,
    args: Annotated[str, typer.Option(metavar="JSON", help="A JSON array, such as '[\"a@b.c\"]'.")] = "[]",
    kwargs: Annotated[str, typer.Option(metavar="JSON", help='A JSON object, such as \'{"subject": "hi"}\'.')] = "{}",
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", help="Not before so many seconds from now.")] = None,
    job_id: Annotated[str | None, typer.Option(metavar="ID", help="One id, one job: repeating it is harmless.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="1 (first) to 10 (last).")] = None,
    retries: Annotated[int | None, typer.Option(metavar="N", help="Runs after the first that fails.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end and print its result as JSON.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="With --wait: no longer than this; it runs on.")
    ] = None,
    app: AppReference = None,
    as_json: AsJson = False,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Make a job and print its id.

    With --app the arguments are checked against the task's function here, else only by the worker.

    \b
    callboard enqueue emails.send --queue emails --args '["a@b.c"]'
    callboard enqueue reports.build -q reports --kwargs '{"pages": 3}' --wait

    Exit codes: 0 recorded (with --wait: completed), 1 the job failed or did not end in time, 2 usage, 69 store or
    broker unavailable.
    """
    if timeout is not None and not wait:
        raise ConfigurationError("--timeout says how long to --wait; give both")
    made = make_remote_app(app, Given(broker=broker, store=store, namespace=namespace))
    if app is not None:
        made.find_task(task)
    options = CallOptions.parse(delay=delay, job_id=job_id, priority=priority, retries=retries)
    positional, named = read_json("--args", args, list), read_json("--kwargs", kwargs, dict)
    job = made.new_job(task, positional, named, options, queue=queue if queue or app else "default")
    asyncio.run(_enqueue(made, job, wait=wait, timeout=timeout, as_json=as_json))


def read_json(option: str, text: str, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """The option's value. Raises ConfigurationError with the position and what is there."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        there = text[error.pos : error.pos + SHOWN] or "the end"
        raise ConfigurationError(
            f"{option} is no JSON: {error.msg} at character {error.pos + 1}, before {there!r}; given: {_cut(text)}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{option} is no JSON that can be read: {error}; given: {_cut(text)}") from None
    if not isinstance(value, kind):
        wanted = "an array, such as '[1, 2]'" if kind is list else "an object, such as '{\"a\": 1}'"
        raise ConfigurationError(f"{option} must be {wanted}; given: {_cut(text)}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _cut(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")


async def _enqueue(app: Callboard, job: NewJob, *, wait: bool, timeout: float | None, as_json: bool) -> None:
    async with app:
        (answer,) = await app.connections.producer.enqueue([job])
        told: dict[str, Any] = {"id": answer.id, "queue": job.queue, "admission": str(answer.admission)}
        if not as_json:
            _tell_duplicate(job, answer)
            print(printable(answer.id), flush=True)
        failure: JobUnfinished | None = None
        if wait:
            handle = JobHandle(app, queue=job.queue, id=answer.id, admission=answer.admission)
            try:
                told["result"] = await handle.result(timeout)
            except JobUnfinished as error:
                failure = error
                told["error"] = message_of(error)
    if as_json:
        print_json(told)
    elif "result" in told:
        print(json.dumps(told["result"]))
    if failure is not None:
        tell(message_of(failure))
        raise typer.Exit(FAILURE)


def _tell_duplicate(job: NewJob, answer: Enqueued) -> None:
    if answer.admission is Admission.EXISTING:
        tell(f"there is a job {answer.id} on {job.queue} already, made by another call; nothing was added")
