"""`callboard queues`, as real processes on real servers."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.metadata.contract import Jobs, QueueControl
from callboard.runtime.options import CallOptions
from integration.cli_process import APP, HERE, Cli, Place
from integration.redis_private import private_redis
from redis_space import RedisSpace, more_calls


@pytest.fixture
def cli(redis_url: str, amqp_url: str) -> Iterator[Cli]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    yield place.cli
    place.delete("sums", "other")


def counts(cli: Cli, queue: str) -> dict[str, int]:
    (row,) = [row for row in cli.ok("queues", "--json").json if row["queue"] == queue]
    return {name: count for name, count in row.items() if name != "queue" and count}


def test_a_queue_is_paused_resumed_drained_and_cleaned(cli: Cli) -> None:
    waiting = cli.ok("enqueue", "cli.add", "-q", "sums").stdout.strip()
    delayed = cli.ok("enqueue", "cli.add", "-q", "sums", "--delay", "600").stdout.strip()

    assert cli.ok("queues", "pause", "sums").stdout == "sums is paused\n"
    assert counts(cli, "sums")["paused"]
    assert "paused" in cli.ok("queues").stdout.splitlines()[2]
    assert cli.ok("queues", "resume", "sums", "--json").json == {"queue": "sums", "paused": False}
    assert "paused" not in counts(cli, "sums")

    assert cli.ok("queues", "drain", "sums", "--yes").stdout == f"{waiting}\n"
    assert cli.ok("queues", "drain", "sums", "--yes", "--delayed", "--json").json["removed"] == [delayed]

    cancelled = cli.ok("enqueue", "cli.add", "-q", "sums").stdout.strip()
    cli.ok("jobs", "cancel", cancelled, "-q", "sums")
    older = cli.ok("queues", "clean", "sums", "--state", "cancelled", "--older-than", "3600", "--yes")
    assert (older.stdout, older.stderr) == ("", "callboard: removed 0 jobs of sums\n")
    assert cli.ok("queues", "clean", "sums", "--state", "cancelled", "--yes").stdout == f"{cancelled}\n"
    assert counts(cli, "sums") == {}


def test_an_obliterated_queue_is_gone(cli: Cli) -> None:
    cli.ok("enqueue", "cli.add", "-q", "sums")
    cli.ok("enqueue", "cli.add", "-q", "other")

    told = cli.ok("queues", "obliterate", "sums", "--yes", "--json").json

    assert told == {"queue": "sums", "removed": 1, "gone": True}
    assert [row["queue"] for row in cli.ok("queues", "--json").json] == ["other"]


def test_an_obliterated_queue_that_stays_is_not_said_to_be_paused(cli: Cli) -> None:
    with cli.start("run", "worker", "--app", APP, "-q", "kept") as worker:
        worker.wait_for("serves")
        told = cli.ok("queues", "obliterate", "kept", "--yes").stdout
        assert "the queue stays as long as a worker serves it or a job runs" in told
        assert counts(cli, "kept") == {}
        worker.send(signal.SIGTERM)
        assert worker.end() == 0
    assert "the queue is gone" in cli.ok("queues", "obliterate", "kept", "--yes").stdout


@pytest.mark.parametrize("command", [("drain", "sums"), ("clean", "sums"), ("obliterate", "sums")])
def test_what_removes_jobs_is_refused_without_a_terminal_or_yes(cli: Cli, command: tuple[str, ...]) -> None:
    cli.ok("enqueue", "cli.add", "-q", "sums")

    refused = cli.run("queues", *command, stdin="y\n")

    assert (refused.code, refused.stdout) == (2, "")
    assert "repeat it with --yes" in refused.stderr
    assert counts(cli, "sums")["waiting"] == 1


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 2, 1), (b"y\n", 0, 0)])
def test_on_a_terminal_it_asks(cli: Cli, answer: bytes, code: int, left: int) -> None:
    cli.ok("enqueue", "cli.add", "-q", "sums")
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    asked = subprocess.run(
        [sys.executable, "-m", "callboard", "queues", "drain", "sums"],
        cwd=HERE.parent, env=cli.environment, stdin=theirs, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)

    assert asked.returncode == code
    assert "Remove all waiting jobs of sums?" in asked.stderr
    assert counts(cli, "sums").get("waiting", 0) == left


def test_an_unknown_queue_is_named_with_those_that_are_known(cli: Cli) -> None:
    cli.ok("enqueue", "cli.add", "-q", "sums")

    for command in (("pause",), ("resume",), ("drain", "--yes"), ("clean", "--yes"), ("obliterate", "--yes")):
        ended = cli.run("queues", command[0], "smus", *command[1:])
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr == "callboard: there is no queue 'smus'; known are: sums\n"


def test_flags_go_before_the_environment_and_may_stand_before_a_sub_command(cli: Cli, redis_url: str) -> None:
    cli.ok("enqueue", "cli.add", "-q", "sums")
    wrong = {"CALLBOARD_STORE": "redis://127.0.0.1:1/0"}

    assert cli.run("queues", variables=wrong).code == 69
    assert cli.run("queues", "--store", redis_url, variables=wrong).code == 0
    assert cli.run("queues", "--store", redis_url, "pause", "sums", variables=wrong).code == 0


def test_what_is_only_read_is_read_while_the_broker_is_down(cli: Cli) -> None:
    cli.ok("enqueue", "cli.add", "-q", "sums", "--job-id", "one")
    down = {"CALLBOARD_BROKER": "amqp://127.0.0.1:1/"}

    for command in (("queues",), ("jobs", "list", "-q", "sums"), ("jobs", "show", "one", "-q", "sums"), ("workers",)):
        ended = cli.run(*command, variables=down)
        assert ended.code == 0, ended


def test_the_table_costs_the_store_the_same_for_10_jobs_and_for_10_000(tmp_path: Path) -> None:
    with private_redis(tmp_path, appendonly="no") as server:
        few, many = (asyncio.run(_calls_of_a_table(server.url, jobs)) for jobs in (10, 10_000))

    assert few == many
    assert few["cmdstat_evalsha"] <= 2  # the names of the queues, and one count of all of them


async def _calls_of_a_table(url: str, jobs: int) -> dict[str, int]:
    space = RedisSpace(url)
    await space.command("FLUSHALL")
    cli = Cli(store=url, namespace=space.namespace)
    store = space.store()
    await store.open()
    app = Callboard(store=url, namespace=space.namespace)
    await store.get(QueueControl).register(["sums"])
    now = app.clock.now()
    for start in range(0, jobs, 100):
        size = min(100, jobs - start)
        new = [app.new_job("cli.add", [1], {}, CallOptions(), queue="sums") for _ in range(size)]
        await store.get(Jobs).enqueue(new, now=now, grace=1000)
    await store.close()
    assert (await asyncio.to_thread(counts, cli, "sums"))["waiting"] == jobs  # its scripts are loaded from now on
    before = await space.calls()
    await asyncio.to_thread(cli.ok, "queues", "--json")
    return more_calls(await space.calls(), before)
