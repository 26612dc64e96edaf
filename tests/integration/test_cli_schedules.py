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
