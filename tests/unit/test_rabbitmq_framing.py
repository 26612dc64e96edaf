"""Which frames are ours: by the URL, else by the installed versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version

import pytest
from yarl import URL

from callboard.brokers.errors import BrokerError
from callboard.brokers.rabbitmq.framing import PINNED, Frames, frames_for, numbers, unknown_versions

KNOWN: Mapping[str, str] = {"aio-pika": "10.2.1", "aiormq": "7.2.4", "pamqp": "4.0.1"}
BARE = URL("amqp://host/?heartbeat=15")


@pytest.mark.parametrize("wanted", list(Frames))
def test_the_url_decides_and_our_parameter_is_not_passed_on(wanted: Frames, caplog: pytest.LogCaptureFixture) -> None:
    url, frames = frames_for(BARE.update_query(frames=wanted), installed=lambda package: "99")
    assert (url, frames) == (BARE, wanted)
    assert caplog.records == []


def test_known_versions_are_fast_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert frames_for(BARE, installed=KNOWN.__getitem__) == (BARE, Frames.FAST)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("package", "other"),
    [
        ("aiormq", "7.3.0"),
        ("aiormq", "7.1.9"),
        ("aiormq", "8"),
        ("pamqp", "4.1"),
        ("aio-pika", "10.3.0"),
        ("pamqp", "?"),
    ],
)
def test_any_unknown_version_is_plain_with_a_warning_that_names_it(
    package: str, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert frames_for(BARE, installed={**KNOWN, package: other}.__getitem__) == (BARE, Frames.PLAIN)
    (record,) = caplog.records
    assert f"{package} {other} (tested: >=" in record.getMessage()


def test_another_choice_is_refused_with_its_value() -> None:
    with pytest.raises(BrokerError, match=re.escape("frames='quick': it may be fast or plain")):
        frames_for(BARE.update_query(frames="quick"))


def test_what_is_installed_here_is_pinned() -> None:
    assert unknown_versions() == [], "record the corpus anew, look at what changed, and raise PINNED"
    assert {package: version(package) for package in PINNED}


@pytest.mark.parametrize(
    ("text", "expected"), [("7.2.4", (7, 2, 4)), ("4.1.0rc1", (4, 1, 0)), ("10", (10,)), ("unknown", ())]
)
def test_a_version_is_its_leading_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected
