"""`callboard schedules add` and `update` with options that make no sense: told in a line, before any server is met."""

from __future__ import annotations

import pytest

from callboard.runtime.cli import app
from callboard.runtime.cli.failures import ending

NOWHERE = ("--store", "redis://127.0.0.1:1/0", "--broker", "amqp://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "--every, --cron and --at"),
        (("--every", "5 apples"), "5 apples"),
        (("--every", "10ms"), "10ms"),
        (("--cron", "61 * * * *"), "61 * * * *"),
        (("--cron", "* * * * *", "--tz", "Atlantis/Capital"), "Atlantis/Capital"),
        (("--every", "60", "--cron", "* * * * *"), "one of every"),
        (("--at", "noon"), "noon"),
        (("--at", "2030-01-01", "--start", "2029-01-01"), "--at is one moment"),
        (("--every", "60", "--start", "2030-01-02", "--end", "2030-01-01"), "before start"),
        (("--every", "60", "--args", "{}"), "array"),
        (("--every", "60", "--max-instances", "many"), "many"),
        (("--every", "60", "--overlap", "sideways"), "sideways"),
        (("--every", "60", "--priority", "11"), "11"),
    ],
)
def test_what_cannot_be_scheduled_is_a_usage_error(
    options: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["schedules", "add", "reports.build", *NOWHERE, *options]
    assert ending(lambda: app(command, standalone_mode=False)) == 2
    told = capsys.readouterr().err
    assert named in told
    assert told.count("\n") == 1


def test_an_update_without_a_change_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(lambda: app(["schedules", "update", "daily", *NOWHERE], standalone_mode=False)) == 2
    assert "nothing to change is given" in capsys.readouterr().err
