"""`callboard submit`: what a producer in another language would publish, checked or sent from the shell."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ...brokers.message import Message, Receipt
from ...brokers.topology import Names
from ...metadata.job import NewJob
from ..app import Callboard
from ..draft import Draft
from ..errors import ConfigurationError
from ..registry import make_broker
from ..submission import MESSAGE_ID_HEADER, Refused, SubmissionReader
from ..urls import scheme_of
from .failures import FAILURE, CommandFailed
from .options import AppReference, AsJson, Broker, Given, Namespace, make_app
from .screen import print_json, printable

STDIN = "-"
CONFIRM_SECONDS = 30.0


def submit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The body: JSON, one job or an array; - reads stdin.")],
    queue: Annotated[
        str, typer.Option("--queue", "-q", metavar="NAME", help="The routing key; empty lets the body decide.")
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Send nothing: say what would become of it.")] = False,
    message_id: Annotated[str | None, typer.Option(metavar="ID", help="The job's id where the body has none.")] = None,
    content_type: Annotated[str, typer.Option(metavar="TYPE", help="AMQP's content_type.")] = "application/json",
    app: AppReference = None,
    as_json: AsJson = False,
    broker: Broker = None,
    namespace: Namespace = None,
) -> None:
    """Publish a body to the exchange for submissions, or explain what is wrong with it.

    The same reader that intake uses says for each job whether it is taken, and why not. --check needs no server; with
    --app the arguments are checked against the task's function too. Without --check a body with a fault is not sent. A
    job without an id is shown with one that is made up anew each time.

    \b
    callboard submit jobs.json --queue emails --check
    echo '{"task": "emails.send", "args": ["a@b.c"]}' | callboard submit - -q emails

    Exit codes: 0 all taken (without --check: and confirmed by the broker), 1 something is refused or was not confirmed,
    2 usage, 69 broker unavailable.
    """
    body = sys.stdin.buffer.read() if file == STDIN else _read(Path(file))
    made = make_app(app, Given(broker=broker, namespace=namespace))
    names = Names(made.settings.namespace)
    draft = Draft(
        body=body,
        exchange=names.submit,
        routing_key=queue,
        headers={} if message_id is None else {MESSAGE_ID_HEADER: message_id},
        content_type=content_type or None,
    )
    parts = SubmissionReader(made, names).read(draft).parts
    verdicts = [_verdict(part) for part in parts]
    refused = sum("refused" in verdict for verdict in verdicts)
    told: dict[str, Any] = {"ok": not refused, "jobs": verdicts}
    if not refused and not check:
        if scheme_of(made.settings.broker.get_secret_value()) == "memory":
            raise ConfigurationError(
                "the broker is memory://, which lives in one process: nobody would take the submission in; give "
                "--broker or CALLBOARD_BROKER, such as amqp://localhost:5672/, or --check to send nothing"
            )
        receipt = asyncio.run(_publish(made, draft))
        told["receipt"] = str(receipt)
        if receipt is not Receipt.CONFIRMED:
            told["ok"] = False
    if as_json:
        print_json(told)
    else:
        for number, verdict in enumerate(verdicts):
            print(printable(_sentence(verdict, number, of=len(verdicts))))
        if "receipt" in told:
            print(f"published to {names.submit}: {told['receipt']}")
    if refused:
        kept = "" if check else "; nothing was sent"
        raise CommandFailed(f"{refused} of {len(verdicts)} would be refused{kept}", code=FAILURE)
    if not told["ok"]:
        raise CommandFailed(_not_confirmed(told["receipt"], names), code=FAILURE)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"cannot read {str(path)!r}: {error.strerror}", code=2) from None


def _verdict(part: NewJob | Refused) -> dict[str, Any]:
    if isinstance(part, Refused):
        refusal = part.refusal
        return {"refused": refusal.code, "message": refusal.message, "path": refusal.path}
    verdict: dict[str, Any] = {"id": part.id, "queue": part.queue, "task": part.task, "priority": part.priority}
    if part.run_at is not None:
        verdict["run_at"] = part.run_at
    return verdict


def _sentence(verdict: dict[str, Any], number: int, *, of: int) -> str:
    which = f"job {number}: " if of > 1 else ""
    if "refused" in verdict:
        place = f" (at {verdict['path']})" if verdict["path"] else ""
        return f"{which}refused, {verdict['refused']}: {verdict['message']}{place}"
    return f"{which}good: task {verdict['task']} for queue {verdict['queue']}, id {verdict['id']}"


async def _publish(app: Callboard, draft: Draft) -> Receipt:
    broker = make_broker(app.settings.broker.get_secret_value(), name="callboard submit")
    await broker.open()
    try:
        message = Message(
            exchange=draft.exchange,
            routing_key=draft.routing_key,
            body=draft.body,
            headers=draft.headers,
            content_type=draft.content_type or "",
        )
        (receipt,) = await broker.publish([message], timeout=CONFIRM_SECONDS)
        return receipt
    finally:
        await broker.close()


def _not_confirmed(receipt: str, names: Names) -> str:
    if receipt == Receipt.RETURNED:
        return f"no queue is bound to {names.submit}: no process of Callboard has ever connected in this namespace"
    return f"the broker did not confirm it ({receipt}): it may have arrived; submit again with the same ids"
