"""How a command ends: exit codes, and one line for what was to be expected."""

from __future__ import annotations

import pytest

from callboard.brokers.errors import BrokerUnavailable
from callboard.metadata.errors import CapabilityMissing, StoreError, StoreRefused, StoreUnavailable
from callboard.runtime.cli.failures import CommandFailed, ending
from callboard.runtime.errors import ConfigurationError, EnqueueUncertain, GaveUp, JobFailed, UnknownTask


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("wrong"), 2),
        (UnknownTask("nobody"), 2),
        (CapabilityMissing(capability="Delays", store="memory", actor="delayed-scanner"), 2),
        (StoreRefused("evicts keys"), 2),
        (StoreUnavailable("redis://host", "refused"), 69),
        (StoreError("wrong password"), 69),
        (BrokerUnavailable("amqp://host", "refused"), 69),
        (GaveUp("worker", restarts=6, seconds=60), 70),
        (JobFailed("id", error_type="ValueError", message="bad"), 1),
        (EnqueueUncertain(("id",), "no answer"), 1),
        (CommandFailed("no queue"), 1),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(lambda: _raise(error)) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_giving_up_tells_the_failure_that_led_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    error = GaveUp("worker", restarts=6, seconds=60)
    error.__cause__ = KeyError("missing\nkey")

    assert ending(lambda: _raise(error)) == 70
    assert capsys.readouterr().err == (
        "callboard: actor worker failed 6 times within 60 s: giving up; its last failure: KeyError: 'missing\\nkey'\n"
    )


def test_what_was_not_expected_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        ending(lambda: _raise(ZeroDivisionError()))


def _raise(error: Exception) -> None:
    raise error
