"""`callboard health`: what a container engine asks, of real processes."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator

import pytest

from integration.cli_process import APP, END_SECONDS, Cli, Ended, Place


@pytest.fixture
def cli(redis_url: str, amqp_url: str) -> Iterator[Cli]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    yield place.cli
    place.delete("sums", "holds")


def two_free_ports() -> int:
    """The first of two that follow one another."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def until(cli: Cli, code: int, *arguments: str) -> Ended:
    deadline = time.monotonic() + END_SECONDS
    while (ended := cli.run("health", *arguments)).code != code:
        assert time.monotonic() < deadline, ended
    return ended


def test_each_process_of_a_worker_tells_that_it_is_ready_until_it_is_gone(cli: Cli) -> None:
    port = two_free_ports()
    cli.environment["CALLBOARD_HEALTH_PORT"] = str(port)
    assert cli.run("health").code == 69
    with cli.start("run", "worker", "retention", "--app", APP, "--processes", "2") as parent:
        until(cli, 0, "--processes", "2")
        reports = cli.ok("health", "--processes", "2", "--json").json
        assert [report["port"] for report in reports] == [port, port + 1]
        assert len({report["process"] for report in reports} | {parent.pid}) == 3
        for report in reports:
            assert (report["live"], report["ready"], report["reasons"]) == (True, True, [])
            assert {actor["kind"]: actor["working"] for actor in report["actors"]} == {
                "worker": True,
                "retention": True,
            }
        parent.send(signal.SIGTERM)
        assert parent.end() == 0
    gone = cli.run("health", "--live", "--json")
    assert (gone.code, gone.json["port"]) == (69, port)
    assert "error" in gone.json


def test_a_process_that_stands_still_does_not_answer(cli: Cli) -> None:
    port = str(two_free_ports())
    with cli.start("run", "retention", "--health-port", port) as process:
        until(cli, 0, "--port", port)
        process.send(signal.SIGSTOP)
        assert cli.run("health", "--port", port, "--live", "--timeout", "0.5").code == 69
        process.send(signal.SIGCONT)
        until(cli, 0, "--port", port, "--live")


def test_without_a_port_the_command_says_where_to_set_one(cli: Cli) -> None:
    ended = cli.run("health")
    assert ended.code == 2
    assert "CALLBOARD_HEALTH_PORT" in ended.stderr


def test_a_host_that_no_name_server_could_know_does_not_answer(cli: Cli) -> None:
    ended = cli.run("health", "--host", "a..b", "--port", "80")
    assert (ended.code, ended.stderr.count("\n")) == (69, 1), ended
    assert "a..b:80 does not answer" in ended.stderr
