"""The schemas against what is really sent, and the AsyncAPI document against the tool of its makers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aio_pika
import jsonschema
import msgspec

from callboard.brokers.topology import Names
from callboard.runtime.message_schemas import message_schemas
from callboard.runtime.testing import running
from callboard.runtime.wire import Bundle, Ticket
from interop.test_producers import program
from path.place import Place

CHECK = """
const { Parser } = require('@asyncapi/parser')
new Parser().parse(require('fs').readFileSync(0, 'utf8')).then(({ document, diagnostics }) => {
  const errors = diagnostics.filter((one) => one.severity === 0)
  for (const one of errors) console.log(one.code, one.message, one.path.join('/'))
  process.exit(document && errors.length === 0 ? 0 : 1)
})
"""


def validate(name: str, message: bytes) -> None:
    jsonschema.Draft202012Validator(message_schemas()[name]).validate(json.loads(message))


def test_every_schema_is_one() -> None:
    for schema in message_schemas().values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schema_of_bundles_knows_every_member() -> None:
    schema = message_schemas()["bundle"]

    assert set(schema["properties"]) == {field.name for field in msgspec.structs.fields(Bundle)}
    assert set(schema["$defs"]["ticket"]["properties"]) == {field.name for field in msgspec.structs.fields(Ticket)}


async def test_what_is_on_the_wire_is_as_the_schemas_say(place: Place) -> None:
    """A spy's queue on each exchange sees a submission, its bundle, the events and a command; and the reply comes."""
    app = place.app()
    names = Names(place.namespace)

    @app.task(name="greet", queue="greetings", retries=1, backoff=0)
    async def greet(name: str) -> str:
        if name == "nobody":
            raise LookupError(name)
        return f"hello {name}"

    seen: dict[str, list[bytes]] = {}

    async def spy(channel: Any, exchange: str, schema: str) -> None:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#" if schema != "bundle" else "greetings")

        async def keep(message: Any) -> None:
            seen.setdefault(schema, []).append(message.body)

        await queue.consume(keep, no_ack=True)

    async with app, await aio_pika.connect(place.broker) as connection:
        channel = await connection.channel()
        for exchange, schema in (
            (names.jobs, "bundle"),
            (names.events, "events"),
            (names.control, "command"),
            (names.submit, "submission"),
        ):
            await spy(channel, exchange, schema)
        replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)

        async def replied(message: Any) -> None:
            seen.setdefault("reply", []).append(message.body)

        await replies.consume(replied, no_ack=True)
        async with running(app, actors=["worker", "intake", "delayed-scanner"]):
            submit = await channel.get_exchange(names.submit, ensure=False)
            body = [
                {"task": "greet", "args": ["schema"], "id": "one", "delay": 0.2, "timeout": 30, "meta": {"a": 1}},
                {"task": "greet", "args": ["nobody"], "id": "two", "backoff": {"type": "fixed", "delay": 0.1}},
                {"task": "greet", "id": "3"},
            ]
            message = aio_pika.Message(json.dumps(body).encode(), reply_to="amq.rabbitmq.reply-to")
            await submit.publish(message, "greetings")
            async with asyncio.timeout(60):
                while await app.queue("greetings").get_job_state("two") != "failed":
                    await asyncio.sleep(0.05)
                while await app.queue("greetings").get_job_state("one") != "completed":
                    await asyncio.sleep(0.05)
                while not {"bundle", "events", "command", "submission", "reply"} <= set(seen):
                    await asyncio.sleep(0.05)
        await place.audit(app)
    for name, messages in seen.items():
        for message in messages:
            if name != "submission":  # one of its jobs is refused, by the schema too
                validate(name, message)


async def test_the_asyncapi_document_is_valid_to_the_tool_of_its_makers(tmp_path: Path) -> None:
    node, npm = program("node"), program("npm")
    install = [npm, "install", "--no-fund", "--no-audit", "--silent", "--prefer-offline", "@asyncapi/parser@3"]
    shown = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "callboard", "wiring", "--format", "asyncapi"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    await asyncio.to_thread(subprocess.run, install, cwd=tmp_path, check=True, timeout=240)
    (tmp_path / "check.js").write_text(CHECK)
    checked = await asyncio.to_thread(
        subprocess.run,
        [node, "check.js"],
        cwd=tmp_path,
        input=shown.stdout,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    document = json.loads(shown.stdout)
    assert document["channels"]["submit"]["address"] == "callboard.submit"
    assert "stranger.send.submit" in document["operations"]
    shutil.rmtree(tmp_path / "node_modules")
