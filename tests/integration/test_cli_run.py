"""`callboard run` and `callboard up`: real processes, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest

from integration.cli_process import APP, Cli, Place, wait_for_file

WORKER = ("run", "worker", "--app", APP, "--queue", "holds", "--grace", "50")


@pytest.fixture
def cli(redis_url: str, amqp_url: str) -> Iterator[Cli]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    yield place.cli
    place.delete("sums", "holds")


def held(cli: Cli, folder: Path) -> str:
    """A job that runs until there is a file `end` in the folder."""
    return cli.ok("enqueue", "cli.hold", "-q", "holds", "--args", json.dumps([str(folder)])).stdout.strip()


def test_the_first_sigterm_lets_the_running_job_end(cli: Cli, tmp_path: Path) -> None:
    job_id = held(cli, tmp_path)
    with cli.start(*WORKER) as worker:
        wait_for_file(tmp_path / "running")
        worker.send(signal.SIGTERM)
        worker.wait_for("waiting for 1 runs")
        (tmp_path / "end").touch()
        code = worker.end()

    shown = cli.ok("jobs", "show", job_id, "-q", "holds", "--json").json
    assert (code, shown["state"], shown["result"], shown["attempts"]) == (0, "completed", "held", 1)
    assert cli.ok("workers", "--json").json == []
    assert int((tmp_path / "frozen").read_text()) > 10_000, "what is imported is looked through again and again"


def test_the_second_sigterm_hands_the_running_job_back_at_once(cli: Cli, tmp_path: Path) -> None:
    job_id = held(cli, tmp_path)
    with cli.start(*WORKER) as worker:
        wait_for_file(tmp_path / "running")
        worker.send(signal.SIGTERM)
        worker.wait_for("waiting for 1 runs")
        worker.send(signal.SIGTERM)
        code = worker.end()

    shown = cli.ok("jobs", "show", job_id, "-q", "holds", "--json").json
    assert (code, shown["state"], shown["dispatch"]) == (0, "waiting", 2)
    assert [(one["outcome"], one["reason"]) for one in shown["history"]] == [("released", "interrupted: stopping")]


def test_several_processes_end_in_order_with_their_parent(cli: Cli) -> None:
    with cli.start(*WORKER, "--processes", "3") as parent:
        parent.wait_for("serves holds", times=3)
        pids = {row["pid"] for row in cli.ok("workers", "--json").json}
        parent.send(signal.SIGTERM)
        code = parent.end()

    assert code == 0
    assert len(pids) == 3
    assert parent.pid not in pids
    assert parent.stderr.count("ended in order") == 3


def test_a_process_that_is_killed_ends_the_others_in_order_and_gives_its_code(cli: Cli) -> None:
    with cli.start(*WORKER, "--processes", "2") as parent:
        parent.wait_for("serves holds", times=2)
        victim = cli.ok("workers", "--json").json[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        code = parent.end()

    assert code == 128 + signal.SIGKILL
    assert f"process {victim} ended with -9; stopping the other 1" in parent.stderr
    assert parent.stderr.count("ended in order") == 1


def test_processes_whose_parent_is_killed_end_in_order(cli: Cli) -> None:
    with cli.start(*WORKER, "--processes", "2") as parent:
        parent.wait_for("serves holds", times=2)
        parent.send(signal.SIGKILL)
        parent.wait_for("ended in order", times=2)

    assert parent.stderr.count("the parent process is gone") == 2


def test_up_runs_every_actor_in_one_process(cli: Cli) -> None:
    with cli.start("up", APP, "--queue", "sums") as everything:
        everything.wait_for("serves sums")
        delayed = cli.ok("enqueue", "cli.add", "-q", "sums", "--args", "[1, 2]", "--delay", "0.3", "--wait")
        everything.send(signal.SIGINT)
        code = everything.end()

    assert (code, delayed.stdout.splitlines()[1]) == (0, "3")
    for actor in ("delayed-scanner", "retention", "stalled-recovery", "worker"):
        assert actor in everything.stderr.splitlines()[0]


def test_actors_other_than_a_worker_need_no_app(cli: Cli) -> None:
    with cli.start("run", "delayed-scanner", "stalled-recovery", "retention", "--log-level", "debug") as actors:
        actors.wait_for("connected")
        actors.send(signal.SIGTERM)
        assert actors.end() == 0


def test_flags_go_over_the_settings_of_the_app(cli: Cli, redis_url: str) -> None:
    refused = cli.run("run", "worker", "--app", APP, "--store", "redis://127.0.0.1:1/0")

    assert refused.code == 69
    assert "store redis://127.0.0.1:1/0 is unavailable" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "worker"), "a worker needs the app whose tasks it runs: --app package.module:app"),
        (("run", "wroker"), "there is no actor 'wroker'; installed are:"),
        (("run", "retention", "retention"), "actor 'retention' is named twice"),
        (("run", "worker", "--app", "cli_tasks"), "--app must look like package.module:app, not 'cli_tasks'"),
        (("run", "worker", "--app", "nowhere:app"), "--app nowhere:app: there is no module 'nowhere' to import"),
        (("run", "worker", "--app", "./jobs:app"), "--app must look like package.module:app, not './jobs:app'"),
        (("up", "integration.cli_tasks:add"), "--app integration.cli_tasks:add is a Task, not a Callboard"),
        (("run", "worker", "--app", APP, "--queue", "sums=0"), "the weight must be a whole number from 1 to 1000"),
        (("run", "worker", "--app", APP, "--queue", "a b"), "queue must be 1 to 128 of the characters"),
        (("run", "worker", "--app", APP, "--queue", "a", "--queue", "a"), "--queue a is given twice"),
        (("run", "retention", "--namespace", "a b"), "settings: namespace: "),
        (("run", "worker", "--app", APP, "--processes", "2"), "the store is memory://, which lives in one process: 2"),
        (("run", "retention"), "one process: retention would never have anything to do; set CALLBOARD_STORE, or"),
        (("queues",), "the store is memory://, which lives in one process"),
        (("enqueue", "cli.add", "--timeout", "3"), "--timeout says how long to --wait; give both"),
    ],
)
def test_a_wrong_command_is_one_line_and_2(arguments: tuple[str, ...], message: str) -> None:
    ended = Cli().run(*arguments)

    assert (ended.code, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("callboard: ")


def test_an_argument_that_is_no_text_is_one_line_and_2() -> None:
    ended = Cli().run("jobs", "show", "\udcff", "-q", "emails", variables={"LANG": "C.UTF-8"})

    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == "callboard: argument 3 is not valid UTF-8: \\udcff\n"


def test_a_store_without_the_broker_to_match_is_refused(redis_url: str, amqp_url: str) -> None:
    ended = Cli(broker=amqp_url).run("run", "retention")

    assert ended.code == 2
    assert "jobs would be lost between them" in ended.stderr


async def test_an_actor_that_fails_too_often_takes_its_process_down_with_one_line_and_70(
    cli: Cli, amqp_url: str
) -> None:
    namespace = cli.environment["CALLBOARD_NAMESPACE"]
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        # Not the queue that a worker declares: it can neither use nor change it, whenever it is started again.
        await channel.declare_queue(f"{namespace}.jobs.sums", durable=True, arguments={"x-max-priority": 3})
    with cli.start("run", "worker", "retention", "--app", APP, "--queue", "sums") as process:
        code = await asyncio.to_thread(process.end)
    assert code == 70, process.stderr
    last = process.stderr.splitlines()[-1]
    assert last.startswith("callboard: actor worker failed 6 times within 60 s: giving up; its last failure: ")
    assert f"{namespace}.jobs.sums" in last
    assert process.stderr.count("starting it again") == 5
