"""The commands that make, show and operate jobs, as real processes on real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from integration.cli_process import APP, Cli, Place

HOSTILE = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold]\r\nsecond \u202e line"


@pytest.fixture
def place(redis_url: str, amqp_url: str) -> Iterator[Place]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    yield place
    place.delete("sums", "default")


@pytest.fixture
def cli(place: Place) -> Cli:
    return place.cli


def enqueued(cli: Cli, *arguments: str) -> str:
    return cli.ok("enqueue", *arguments).stdout.strip()


def test_a_job_is_listed_shown_cancelled_retried_and_removed(cli: Cli) -> None:
    job_id = enqueued(cli, "cli.add", "--queue", "sums", "--args", "[1, 2]", "--delay", "600", "--priority", "2")
    sums = ("--queue", "sums")

    (listed,) = cli.ok("jobs", "list", *sums, "--json").json
    shown = cli.ok("jobs", "show", job_id, *sums, "--json").json
    assert listed["id"] == shown["id"] == job_id
    assert (shown["state"], shown["args"], shown["priority"], shown["progress"]) == ("delayed", [1, 2], 2, None)
    assert job_id in cli.ok("jobs", "list", *sums, "--state", "delayed").stdout
    assert "no failed job" in cli.ok("jobs", "list", *sums, "--state", "failed").stderr

    not_final = cli.run("jobs", "retry", job_id, *sums)
    assert (not_final.code, not_final.stdout) == (1, "")
    assert f"job {job_id} in queue sums is delayed" in not_final.stderr

    assert cli.ok("jobs", "cancel", job_id, *sums).stdout == f"{job_id} cancelled\n"
    assert cli.ok("jobs", "retry", job_id, *sums, "--json").json == [{"id": job_id, "done": True, "what": "sent again"}]
    assert cli.ok("jobs", "show", job_id, *sums, "--json").json["state"] == "waiting"
    assert cli.ok("jobs", "remove", job_id, *sums).stdout == f"{job_id} removed\n"
    assert cli.ok("jobs", "list", *sums, "--json").json == []


def test_a_delayed_job_is_rescheduled_and_promoted(cli: Cli) -> None:
    sums = ("--queue", "sums")
    job_id = enqueued(cli, "cli.add", *sums, "--args", "[1, 2]", "--delay", "600")

    at = "2031-01-01T09:00:00+01:00"
    assert cli.ok("jobs", "reschedule", job_id, *sums, "--at", at).stdout == f"{job_id} rescheduled\n"
    assert cli.ok("jobs", "show", job_id, *sums, "--json").json["run_at"] == "2031-01-01T08:00:00Z"
    for wrong in (("--at", "tomorrow"), ("--at", "2031-01-01T09:00"), ("--at", at, "--delay", "1"), ()):
        refused = cli.run("jobs", "reschedule", job_id, *sums, *wrong)
        assert (refused.code, refused.stdout) == (2, "")

    assert cli.ok("jobs", "promote", job_id, *sums).stdout == f"{job_id} sent\n"
    again = cli.run("jobs", "promote", job_id, *sums)
    assert (again.code, f"job {job_id} in queue sums is waiting" in again.stderr) == (1, True)


def test_an_unknown_job_is_named_with_its_queue(cli: Cli) -> None:
    for command in ("show", "retry", "cancel", "promote", "remove"):
        ended = cli.run("jobs", command, "nobody", "--queue", "sums")
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr == "callboard: there is no job 'nobody' in queue 'sums'\n"


def test_pages_of_a_list_go_on_where_the_last_one_ended(cli: Cli) -> None:
    for number in range(3):
        enqueued(cli, "cli.add", "--queue", "sums", "--job-id", f"job-{number}", "--delay", str(6000 - 1000 * number))

    first = cli.run("jobs", "list", "--queue", "sums", "--limit", "2", "--json").json
    second = cli.run("jobs", "list", "--queue", "sums", "--limit", "2", "--offset", "2", "--json").json
    assert [job["id"] for job in first + second] == ["job-0", "job-1", "job-2"]  # the last due first
    assert "2 of 3; go on with --offset 2" in cli.ok("jobs", "list", "--queue", "sums", "--limit", "2").stderr


def test_arguments_that_are_no_json_are_told_with_their_place(cli: Cli) -> None:
    broken = cli.run("enqueue", "cli.add", "--args", "[1 2]")
    assert (broken.code, broken.stdout) == (2, "")
    assert "--args is no JSON: Expecting ',' delimiter at character 4, before '2]'; given: '[1 2]'" in broken.stderr

    no_array = cli.run("enqueue", "cli.add", "--args", "{}")
    assert (no_array.code, "--args must be an array" in no_array.stderr) == (2, True)
    deep = cli.run("enqueue", "cli.add", "--kwargs", '{"a":' * 20_000)
    assert (deep.code, "Traceback" in deep.stderr, len(deep.stderr.splitlines())) == (2, False, 1)
    infinite = cli.run("enqueue", "cli.add", "--args", "[Infinity]")
    assert (infinite.code, "Infinity is no JSON number" in infinite.stderr) == (2, True)


def test_with_an_app_arguments_and_names_are_checked_before_anything_is_recorded(cli: Cli) -> None:
    wrong = cli.run("enqueue", "cli.add", "--app", APP, "--args", '["one", 2]')
    unknown = cli.run("enqueue", "cli.subtract", "--app", APP)
    assert (wrong.code, wrong.stderr.splitlines()) == (
        2, ["callboard: args[0]: Input should be a valid integer, got 'one'"],
    )  # fmt: skip
    assert (unknown.code, "no task named 'cli.subtract'" in unknown.stderr) == (2, True)
    assert cli.ok("queues", "--json").json == []


def test_the_same_id_makes_one_job_and_says_so(cli: Cli) -> None:
    order = ("cli.add", "--queue", "sums", "--delay", "600", "--job-id", "order-7")
    assert enqueued(cli, *order, "--args", "[1]") == "order-7"

    again = cli.ok("enqueue", *order, "--args", "[2]")
    assert again.stdout == "order-7\n"
    assert "there is a job order-7 on sums already" in again.stderr
    assert cli.ok("enqueue", *order, "--args", "[2]", "--json").json["admission"] == "existing"


def test_an_output_that_takes_no_unicode_is_written_with_escapes(cli: Cli) -> None:
    enqueued(cli, "cli.add", "-q", "sums", "--job-id", "ünique")
    ended = cli.run("jobs", "list", "-q", "sums", variables={"PYTHONIOENCODING": "ascii"})
    assert ended.code == 0, ended
    assert r"\xfcnique" in ended.stdout
    cli.ok("jobs", "remove", "ünique", "-q", "sums")


def test_hostile_text_reaches_the_terminal_escaped(place: Place) -> None:
    cli = place.cli
    with cli.start("run", "worker", "--app", APP) as worker:
        worker.wait_for("serves")
        job = ("cli.fail", "--queue", "sums", "--args", f"[{json.dumps(HOSTILE)}]", "--job-id", "[red]evil[/red]")
        failed = cli.run("enqueue", *job, "--wait", "--timeout", "30")

    assert (failed.code, failed.stdout) == (1, "[red]evil[/red]\n")
    escaped = r"ValueError: \x1b]0;owned\x07\x1b[31m[bold]red[/bold]\r\nsecond \u202e line"
    assert failed.stderr == f"callboard: job [red]evil[/red] failed: {escaped}\n"
    for colours in ({}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}):
        for command in (("list",), ("show", "[red]evil[/red]", "--traceback")):
            shown = cli.run("jobs", *command, "--queue", "sums", variables=colours)
            assert shown.code == 0, shown
            assert "[red]evil[/red]" in shown.stdout
            assert not {"\x07", "\r", "\u202e"} & set(shown.stdout)
            assert "\x1b]" not in shown.stdout
            assert ("\x1b" in shown.stdout) == bool(colours)  # our own colours
    shown = cli.ok("jobs", "show", "[red]evil[/red]", "--queue", "sums", "--traceback")
    assert escaped in shown.stdout
    assert "Traceback (most recent call last):" in shown.stdout
    assert cli.ok("jobs", "show", "[red]evil[/red]", "--queue", "sums", "--json").json["args"] == [HOSTILE]


def test_a_worker_runs_what_was_enqueued_and_is_listed_once(place: Place) -> None:
    cli = place.cli
    with cli.start(
        "run", "worker", "--app", APP, "--queue", "sums", "--queue", "default", "--concurrency", "3"
    ) as worker:
        worker.wait_for("serves")
        waited = cli.ok("enqueue", "cli.add", "--app", APP, "--args", "[1, 2]", "--wait", "--timeout", "30")
        told = cli.ok("enqueue", "cli.steps", "-q", "sums", "--args", "[7]", "--wait", "--json").json
        (listed,) = cli.ok("workers", "--json").json
        table = cli.ok("workers").stdout
        progress = cli.ok("jobs", "show", told["id"], "-q", "sums", "--json").json["progress"]

    assert waited.stdout.splitlines()[1] == "3"
    assert (told["result"], told["admission"]) == (7, "created")
    assert (listed["pid"], listed["queues"], listed["concurrency"]) == (worker.pid, ["default", "sums"], 3)
    assert str(worker.pid) in table
    assert "default, sums" in table
    assert progress in ({"step": 7}, None)  # a finished job's progress need not be kept


def test_waiting_ends_with_the_time_given_and_the_job_goes_on(cli: Cli) -> None:
    ended = cli.run("enqueue", "cli.add", "-q", "sums", "--args", "[1, 2]", "--wait", "--timeout", "0.2")

    assert ended.code == 1
    assert "is waiting after 0.2 s" in ended.stderr
    assert cli.ok("jobs", "show", ended.stdout.strip(), "-q", "sums", "--json").json["state"] == "waiting"
