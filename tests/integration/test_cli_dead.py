"""`callboard dead` as an operator meets it: real processes, a real RabbitMQ; letters of an intake's making."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.brokers.message import Message, Receipt
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.topology import Names
from integration.cli_process import Cli, Place

HOSTILE = b"\xff\x1b]0;owned\x07\r\n{}"


@pytest.fixture(scope="module")
def place(redis_url: str, amqp_url: str) -> Iterator[Place]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    yield place
    place.delete("emails")


@pytest.fixture(scope="module")
def cli(place: Place, amqp_url: str) -> Cli:
    """With three letters: one that is no text, one that is no JSON, one with a member too many."""
    bodies = [HOSTILE, b"nope", b'{"task": "x", "\\u001b[31m": 1, "id": "third"}']
    with place.cli.start("run", "intake") as intake:
        intake.wait_for("takes in")
        asyncio.run(submit(amqp_url, place.namespace, bodies))
        intake.wait_for("puts aside", times=1)
        for _ in range(100):
            if sum(counts(place.cli).values()) == len(bodies):
                break
        intake.send(signal.SIGTERM)
        assert intake.end() == 0
    return place.cli


async def submit(amqp_url: str, namespace: str, bodies: list[bytes]) -> None:
    broker = RabbitMQBroker.from_url(amqp_url, name="stranger")
    await broker.open()
    for body in bodies:
        message = Message(exchange=Names(namespace).submit, routing_key="emails", body=body)
        assert list(await broker.publish([message], timeout=10)) == [Receipt.CONFIRMED]
    await broker.close()


async def put_aside(amqp_url: str, namespace: str, ids: list[str]) -> None:
    broker, names = RabbitMQBroker.from_url(amqp_url, name="intake"), Names(namespace)
    await broker.open()
    for letter in ids:
        headers: dict[str, Any] = {"callboard-letter": letter, "callboard-reason": "not-json", "callboard-size": 4}
        message = Message(exchange=names.dead, routing_key="orders", body=b"nope", headers=headers)
        assert await broker.publish([message], timeout=10) == [Receipt.CONFIRMED]
    await broker.close()


def counts(cli: Cli) -> dict[str, int]:
    found: dict[str, int] = cli.ok("dead", "list", "--counts", "--json").json
    return found


def listed(cli: Cli, *filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.ok("dead", "list", "--json", *filters).json
    return found


def test_letters_are_listed_counted_and_shown_and_stay(cli: Cli) -> None:
    assert counts(cli) == {"not-json": 1, "not-utf-8": 1, "unknown-member": 1}
    assert [letter["reason"] for letter in listed(cli, "--reason", "not-json", "--queue", "emails")] == ["not-json"]
    assert listed(cli, "--older-than", "3600") == []
    (letter,) = listed(cli, "--reason", "not-utf-8")

    shown = cli.ok("dead", "show", letter["id"][:8])
    assert "ff 1b 5d 30" in shown.stdout
    data = cli.ok("dead", "show", letter["id"], "--json").json
    assert base64.b64decode(data["body"]) == HOSTILE
    assert data["routing_key"] == "emails"
    assert len(listed(cli)) == 3


def test_nothing_of_a_letter_reaches_the_terminal_unescaped(cli: Cli) -> None:
    for shown in (cli.ok("dead", "list").stdout, *(cli.ok("dead", "show", one["id"]).stdout for one in listed(cli))):
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\r" not in shown


def test_what_changes_something_says_what_and_is_confirmed(cli: Cli) -> None:
    assert cli.run("dead", "delete").code == 2
    assert "--all" in cli.run("dead", "delete").stderr
    assert "--yes" in cli.run("dead", "requeue", "--all").stderr
    assert cli.run("dead", "show", "not-there").code == 1
    assert cli.run("dead", "delete", "not-there").code == 1
    assert cli.run("dead", "list", variables={"CALLBOARD_BROKER": "memory://"}).code == 2
    assert len(listed(cli)) == 3


def test_an_empty_id_means_no_letter_and_an_id_goes_before_those_that_begin_with_it(cli: Cli, amqp_url: str) -> None:
    asyncio.run(put_aside(amqp_url, cli.environment["CALLBOARD_NAMESPACE"], ["order-1", "order-10", "order-11"]))
    for command in ("delete", "requeue", "show"):
        ended = cli.run("dead", command, "")
        assert ended.code == 2
        assert "an id is empty" in ended.stderr
    assert "several begin with 'order'" in cli.run("dead", "delete", "order").stderr
    assert cli.ok("dead", "show", "order-1", "--json").json["id"] == "order-1"
    assert cli.ok("dead", "delete", "order-1").stdout == "deleted 1\n"
    assert cli.run("dead", "delete", "order-12").code == 1
    assert [letter["id"] for letter in listed(cli, "order")] == ["order-10", "order-11"]
    assert cli.ok("dead", "delete", "order-10", "order-11").stdout == "deleted 2\n"
    assert len(listed(cli)) == 3


def test_an_export_that_cannot_begin_is_one_line_and_leaves_the_file_as_it_is(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    file.write_text("of before\n")
    assert cli.run("dead", "export", "-o", str(file), "--broker", "amqp://127.0.0.1:1/").code == 69
    assert file.read_text() == "of before\n"
    for path in (tmp_path / "nowhere" / "letters.jsonl", Path("/dev/full")):
        ended = cli.run("dead", "export", "-o", str(path))
        assert (ended.code, ended.stderr.count("\n")) == (1, 1), ended
        assert "cannot write" in ended.stderr
    assert len(listed(cli)) == 3


def test_letters_go_back_are_exported_and_deleted(cli: Cli, tmp_path: Path) -> None:
    """The last of them: none is left."""
    file = tmp_path / "letters.jsonl"
    cli.ok("dead", "export", "--output", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [base64.b64decode(line["body"]) for line in lines][:2] == [HOSTILE, b"nope"]

    assert cli.ok("dead", "requeue", "--reason", "not-json", "--yes").stdout == "requeued 1\n"
    assert counts(cli) == {"not-utf-8": 1, "unknown-member": 1}  # no intake runs: it waits there
    (letter,) = listed(cli, "--reason", "not-utf-8")
    assert cli.ok("dead", "delete", letter["id"]).stdout == "deleted 1\n"
    assert cli.ok("dead", "delete", "--all", "--yes", "--json").json == {"deleted": 1}
    assert counts(cli) == {}
