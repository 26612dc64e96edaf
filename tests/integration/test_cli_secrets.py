"""Passwords in URLs: no command prints them, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from integration.cli_process import APP, Cli, Place

MARKER = "hunter2marker"
COMMANDS = (
    ("queues",),
    ("enqueue", "cli.add", "--queue", "sums"),
    ("run", "worker", "--app", APP, "--log-level", "debug"),
    ("run", "retention", "--processes", "2", "--log-level", "debug"),
)
# With the server's own address in place of {server}: credentials that it refuses, nobody there, no such host, no TLS,
# and URLs that cannot be read.
STORES = (
    f"redis://user:{MARKER}@{{server}}/0",
    f"redis://user:{MARKER}@127.0.0.1:1/0",
    f"redis://user:{MARKER}@nowhere.invalid/0",
    f"redis://user:p/{MARKER}#@host:port/0",
    f"redis://user:{MARKER} x@[broken/0",
    f"redis://127.0.0.1:1/0?password={MARKER}",
    f"unknown://user:{MARKER}@host/",
    MARKER,
)
BROKERS = (
    f"amqp://user:{MARKER}@{{server}}/",
    f"amqp://user:{MARKER}@127.0.0.1:1/",
    f"amqps://user:{MARKER}@{{server}}/",
    f"amqp://user:p/{MARKER}#@host:port/",
    f"amqp://user:{MARKER} x@[broken/0",
    f"unknown://user:{MARKER}@host/",
    MARKER,
)


@pytest.fixture(scope="module")
def namespace(redis_url: str, amqp_url: str) -> Iterator[str]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    yield place.namespace
    place.delete("sums")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("store", STORES)
def test_no_command_prints_the_password_of_a_store(
    command: tuple[str, ...], store: str, redis_url: str, amqp_url: str, namespace: str
) -> None:
    ended = Cli(broker=amqp_url, store=store.format(server=server_of(redis_url)), namespace=namespace).run(*command)

    assert ended.code in (2, 69), ended
    assert "callboard: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert MARKER not in ended.stdout + ended.stderr


@pytest.mark.parametrize("command", COMMANDS[1:3], ids=" ".join)
@pytest.mark.parametrize("broker", BROKERS)
def test_no_command_prints_the_password_of_a_broker(
    command: tuple[str, ...], broker: str, redis_url: str, amqp_url: str, namespace: str
) -> None:
    cli = Cli(broker=broker.format(server=server_of(amqp_url)), store=redis_url, namespace=namespace)
    ended = cli.run(*command)

    assert ended.code in (2, 69), ended
    assert "callboard: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert MARKER not in ended.stdout + ended.stderr


def server_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"
