"""Messages and what becomes of them, as data that a producer's own tests can use: golden/submissions.json.

Each case: `body` (JSON), `text` or `base64`; the routing `key`; properties and headers where they matter; `taken`: for
each job, in order, members of the accepted job, or the `code` and `path` of its refusal. `by_schema` false: the JSON
Schema refuses it too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from callboard import Callboard
from callboard.brokers.topology import Names
from callboard.runtime.draft import Draft
from callboard.runtime.message_schemas import message_schemas
from callboard.runtime.submission import MEMBERS, Refused, SubmissionReader
from path.place import Place

CASES = json.loads((Path(__file__).parent / "golden" / "submissions.json").read_text())


def body_of(case: dict[str, Any]) -> bytes:
    if "text" in case:
        return str(case["text"]).encode()
    if "base64" in case:
        return base64.b64decode(case["base64"])
    return json.dumps(case["body"]).encode()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_intake_judges_a_message_as_it_is_written_down(case: dict[str, Any]) -> None:
    draft = Draft(
        body=body_of(case),
        exchange="callboard.submit",
        routing_key=case["key"],
        content_type=case.get("content_type", "application/json"),
        content_encoding=case.get("content_encoding"),
        headers=case.get("headers", {}),
    )

    parts = SubmissionReader(Callboard(), Names()).read(draft).parts

    assert len(parts) == len(case["taken"])
    for part, expected in zip(parts, case["taken"], strict=True):
        if isinstance(part, Refused):
            assert {"code": part.refusal.code, "path": part.refusal.path} == expected, part.refusal.message
        else:
            assert {name: getattr(part, name) for name in expected} == expected


@pytest.mark.parametrize("case", [case for case in CASES if "body" in case], ids=lambda case: case["name"])
def test_the_schema_agrees(case: dict[str, Any]) -> None:
    schema = message_schemas()["submission"]
    valid = jsonschema.Draft202012Validator(schema).is_valid(case["body"])

    assert valid is case.get("by_schema", True)


def submit(*arguments: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "callboard", "submit", "-", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")}
    return subprocess.run(command, input=given, env=environment, capture_output=True, timeout=60, check=False)


def test_the_command_says_what_is_wrong_without_any_server() -> None:
    given = b'[{"task": "a"}, {"task": "b", "priority": 11}]'

    said = submit("--queue", "emails", "--check", given=given)
    assert said.returncode == 1
    assert b"job 0: good: task a for queue emails" in said.stdout
    assert b"job 1: refused, invalid-member: priority must be" in said.stdout
    assert b"(at /1/priority)" in said.stdout
    assert b"1 of 2 would be refused" in said.stderr

    as_data = json.loads(submit("--queue", "emails", "--check", "--json", given=given).stdout)
    assert as_data["ok"] is False
    assert as_data["jobs"][1]["refused"] == "invalid-member"


def test_the_command_sends_to_no_broker_that_nobody_else_sees() -> None:
    said = submit("--queue", "emails", given=b'{"task": "a"}')
    assert said.returncode == 2
    assert b"memory://" in said.stderr


async def test_the_command_submits(place: Place) -> None:
    async with place.open():  # the exchange and its queue are there
        command = [sys.executable, "-m", "callboard", "submit", "-", "--queue", "emails", "--json"]
        where = ["--broker", place.broker, "--namespace", place.namespace]
        given = b'{"task": "a", "id": "from-the-shell"}'
        said = await asyncio.to_thread(
            subprocess.run, [*command, *where], input=given, capture_output=True, timeout=60, check=False
        )
    assert json.loads(said.stdout)["receipt"] == "confirmed", said.stderr


def test_the_schema_of_submissions_knows_every_member() -> None:
    properties = message_schemas()["submission"]["$defs"]["job"]["properties"]

    assert set(properties) == MEMBERS
