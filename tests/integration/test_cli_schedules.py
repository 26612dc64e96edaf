"""`callboard schedules`, as real processes on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from callboard import Callboard
from integration.cli_process import Cli, Place


@pytest.fixture
def cli(redis_url: str, amqp_url: str) -> Iterator[Cli]:
    place = Place(redis_url=redis_url, amqp_url=amqp_url)
    asyncio.run(schedule(redis_url, place.namespace))
    yield place.cli
    place.delete("sums")


async def schedule(redis_url: str, namespace: str) -> None:
    async with Callboard(broker="memory://", store=redis_url, namespace=namespace) as app:
        sums = app.queue("sums")
        await sums.upsert_repeatable("cli.add", cron="30 2 * * *", timezone="Europe/Berlin", args=(1, 2))
        await sums.upsert_repeatable("cli.add", every=3600, id="hourly", args=(3, 4))


def test_schedules_are_listed_and_shown(cli: Cli) -> None:
    rows = cli.ok("schedules", "list", "--json").json
    assert [(row["id"], row["task_id"], row["paused"]) for row in rows] == [
        ("cli.add", "cli.add", False),
        ("hourly", "cli.add", False),
    ]
    assert "every 3600 s" in cli.ok("schedules", "list").stdout
    assert "30 2 * * * Europe/Berlin" in cli.ok("schedules", "show", "cli.add").stdout


def test_a_preview_is_of_the_zone_and_changes_nothing(cli: Cli) -> None:
    before = cli.ok("schedules", "show", "cli.add", "--json").json
    moments = cli.ok("schedules", "preview", "cli.add", "-n", "3", "--zone", "Europe/Berlin", "--json").json
    assert len(moments) == 3
    assert {moment[11:16] for moment in moments} <= {"02:30", "03:00"}  # 03:00 in the night that has no 02:30
    assert cli.ok("schedules", "show", "cli.add", "--json").json == before


def test_reading_works_while_the_broker_is_down(cli: Cli) -> None:
    away = {"CALLBOARD_BROKER": "amqp://127.0.0.1:1/"}
    assert cli.run("schedules", "list", variables=away).code == 0
    assert cli.run("schedules", "preview", "hourly", variables=away).code == 0


def test_a_schedule_is_paused_resumed_run_and_removed(cli: Cli) -> None:
    assert cli.ok("schedules", "pause", "hourly").stdout == "hourly is paused\n"
    assert cli.ok("schedules", "show", "hourly", "--json").json["paused"]
    assert cli.ok("schedules", "resume", "hourly", "--json").json["paused"] is False

    job = cli.ok("schedules", "run", "hourly").stdout.strip()
    shown = cli.ok("jobs", "show", job, "-q", "sums", "--json").json
    assert (shown["args"], shown["meta"]["schedule"]["manual"]) == ([3, 4], True)

    assert cli.run("schedules", "remove", "hourly").code == 2
    assert cli.ok("schedules", "remove", "hourly", "--yes").stdout == "hourly is removed\n"
    assert cli.run("schedules", "show", "hourly").code == 1


def test_an_unknown_schedule_or_zone_is_told(cli: Cli) -> None:
    for command in (("show", "nothing"), ("pause", "nothing"), ("remove", "nothing", "--yes"), ("run", "nothing")):
        ended = cli.run("schedules", *command)
        assert (ended.code, "nothing" in ended.stderr) == (1, True), ended
    assert cli.run("schedules", "list", "--zone", "Atlantis/Capital").code == 2


def test_a_schedule_is_added_and_updated_by_options(cli: Cli) -> None:
    timing = ("--cron", "0 9 * * mon-fri", "--tz", "Europe/Berlin", "--start", "2030-01-01", "--jitter", "5m")
    policy = ("--misfire-grace", "1h", "--max-instances", "2", "--overlap", "queue")
    job = ("--args", "[1, 2]", "--priority", "2", "--retries", "3", "--ttl", "10m", "--name", "Sums")
    add = ("schedules", "add", "cli.add", "-q", "sums", "--id", "daily", *timing, *policy, *job)

    planned = cli.ok(*add, "--dry-run", "--json").json
    assert (planned["dry_run"], len(planned["next"])) == (True, 3)
    assert planned["next"][0].startswith("2030-01-01T08:00:00")  # a Tuesday, 09:00 in Berlin
    assert cli.run("schedules", "show", "daily").code == 1

    made = cli.ok(*add)
    assert made.stdout == "daily\n"
    assert "next: 2030-01-01T08:00:00" in made.stderr
    shown = cli.ok("schedules", "show", "daily", "--json").json
    assert shown["job_def"] == planned["job_def"]
    assert {name: shown["job_def"][name] for name in ("cron", "timezone", "args", "priority", "retries", "ttl")} == {
        **{"cron": "0 9 * * mon-fri", "timezone": "Europe/Berlin", "args": [1, 2]},
        **{"priority": 2, "retries": 3, "ttl": 600},
    }
    assert (shown["policy"]["misfire_grace"], shown["policy"]["overlap"]) == (3600, "queue")
    assert cli.run(*add).code == 1

    change = ("schedules", "update", "daily", "--every", "15m", "--max-instances", "none", "--args", "[3, 4]")
    dry = cli.ok(*change, "--dry-run")
    assert "args: [1, 2] -> [3, 4]" in dry.stdout
    assert "every: nothing -> 900.0" in dry.stdout
    assert cli.ok("schedules", "show", "daily", "--json").json == shown
    changes = cli.ok(*change, "--json").json["changes"]
    assert changes["args"] == {"before": [1, 2], "after": [3, 4]}
    assert changes["max_instances"] == {"before": 2, "after": None}
    again = cli.ok(*change)
    assert (again.stdout, again.stderr) == ("", "callboard: it is like that already\n")
    assert cli.run("schedules", "update", "nothing", "--every", "60").code == 1


def test_schedules_are_filtered_and_sorted(cli: Cli) -> None:
    def ids(*options: str) -> list[str]:
        return [row["id"] for row in cli.ok("schedules", "list", "--json", *options).json]

    cli.ok("schedules", "pause", "hourly")
    assert ids("--state", "paused") == ["hourly"]
    assert ids("--trigger", "cron") == ids("--query", "berlin") == ["cli.add"]
    assert ids("--sort-by", "next_run_time", "--desc") == ["hourly", "cli.add"]
    assert "none of 2 schedules" in cli.run("schedules", "list", "--query", "nothing").stderr
