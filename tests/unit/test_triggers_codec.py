"""Triggers and policies as JSON and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.runtime.triggers import (
    STAMP,
    AllOf,
    AnyOf,
    At,
    Cron,
    Daylight,
    Every,
    Policy,
    Trigger,
    TriggerInvalid,
    decode_policy,
    decode_trigger,
    encode_policy,
    encode_trigger,
)

NOW = datetime(2026, 11, 22, 5, 17, 30, 123_000, tzinfo=UTC)
TRIGGERS: list[Trigger] = [
    Every(60),
    Every(1.001, start=NOW, end=NOW + timedelta(days=1), jitter=0.5),
    Every(weeks=500),
    Cron("*/5 * * * *"),
    Cron("0 9 * * mon#1", zone="Europe/Berlin", daylight=Daylight.create(missing="skip", repeated="second")),
    Cron(day="2nd fri, last", hour=8, second="*/5", start=NOW, jitter=3),
    At(NOW, jitter=60),
    AnyOf(At(NOW), AllOf(Every(2), Cron("* * * * *"), end=NOW), jitter=1),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_a_trigger_comes_back_equal_and_to_the_same_bytes(trigger: Trigger) -> None:
    data = encode_trigger(trigger)

    stored = decode_trigger(data)

    assert stored.trigger == trigger
    assert stored.current
    assert encode_trigger(stored.trigger) == data


def test_the_form_is_json_with_a_version_and_the_engine_s_stamp() -> None:
    assert msgspec.json.decode(encode_trigger(Cron("0 9 * * *", start=NOW))) == {
        "version": 1,
        "engine": STAMP,
        "trigger": {
            "type": "cron",
            "expression": "0 9 * * *",
            "zone": "UTC",
            "daylight": {"missing": "usual", "repeated": "usual"},
            "start": "2026-11-22T05:17:30.123000+00:00",
        },
    }
    assert STAMP.startswith("croniter 7.")


def test_what_another_engine_computed_is_not_current() -> None:
    data = encode_trigger(Every(60)).replace(b"croniter 7", b"croniter 6")

    assert not decode_trigger(data).current


def test_a_changed_trigger_has_other_bytes() -> None:
    assert len({encode_trigger(trigger) for trigger in TRIGGERS}) == len(TRIGGERS)


def test_intervals_below_a_second_are_not_stored() -> None:
    with pytest.raises(TriggerInvalid, match=r"interval=0\.5"):
        encode_trigger(AnyOf(Every(60), Every(0.5, shortest=0.1)))
    with pytest.raises(TriggerInvalid, match=r"interval=0\.5"):
        decode_trigger(stored({"type": "every", "interval": 0.5}))


def stored(trigger: Any, **others: Any) -> bytes:
    return msgspec.json.encode({"version": 1, "engine": STAMP, "trigger": trigger, **others})


def nested(levels: int) -> dict[str, Any]:
    form: dict[str, Any] = {"type": "every", "interval": 60}
    for _ in range(levels):
        form = {"type": "any_of", "parts": [form, form]}
    return form


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 20_000, "is not JSON"),
        (b"[]", "wants an object"),
        (b"{}", "version=None: is not 1"),
        (b'"' + b"x" * 40_000 + b'"', "is longer than 32768 bytes"),
        (stored(None), "trigger=None: wants an object"),
        (stored({"type": "every", "interval": 60}, version=2), "version=2: is not 1"),
        (stored({"type": "every", "interval": 60}, engine=7), "engine=7"),
        (stored({"type": "every", "interval": 60}, more=7), "more=7: is not a member"),
        (stored({"type": "often"}), "trigger.type='often': is not one of every, cron"),
        (stored({"type": ["every"]}), "trigger.type="),
        (stored({"type": "every"}), "interval=None: is needed"),
        (stored({"type": "every", "interval": "60"}), "seconds='60'"),
        (stored({"type": "every", "interval": 60, "minutes": 1}), "minutes=1: is not a member of every"),
        (stored({"type": "every", "interval": 60, "start": "now"}), "start='now': is not a moment"),
        (stored({"type": "every", "interval": 60, "start": 5}), "start=5"),
        (stored({"type": "every", "interval": 60, "end": "2026-01-01T00:00:00"}), "end=.*no time zone"),
        (stored({"type": "every", "interval": 60, "jitter": None}), "jitter=None"),
        (stored({"type": "cron"}), "expression=None: give it"),
        (stored({"type": "cron", "expression": ["*"]}), "expression="),
        (stored({"type": "cron", "expression": "* * * * *", "zone": "../x"}), "zone='../x'"),
        (stored({"type": "cron", "expression": "* * * * *", "zone": None}), "zone=None"),
        (stored({"type": "cron", "expression": "* * * * *", "daylight": 1}), "daylight=1"),
        (stored({"type": "cron", "expression": "* * * * *", "daylight": {"missing": 1}}), "missing=1"),
        (stored({"type": "cron", "expression": "* * * * *", "daylight": {"x": 1}}), "x=1: is not a member"),
        (stored({"type": "cron", "hour": [1]}), "hour="),
        (stored({"type": "at"}), "moment=None: is needed"),
        (stored({"type": "any_of", "parts": 5}), "parts=5"),
        (stored({"type": "any_of", "parts": []}), "at least two"),
        (stored({"type": "all_of", "parts": [{"type": "every", "interval": 60}] * 17}), "at most 16"),
        (stored(nested(4)), "at most 3 levels"),
    ],
)
def test_what_nobody_encoded_is_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(TriggerInvalid, match=words):
        decode_trigger(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "parts", "hour"]), inner),
    max_leaves=5,
)
members = st.sampled_from(["interval", "expression", "moment", "parts", "start", "jitter", "zone", "daylight", "day"])


@given(st.sampled_from(["every", "cron", "at", "any_of", "all_of"]), st.dictionaries(members, json_values, max_size=4))
def test_whatever_stands_in_a_store_is_a_trigger_or_refused(kind: str, form: dict[str, Any]) -> None:
    data = stored({"type": kind, **form})
    try:
        found = decode_trigger(data).trigger
    except TriggerInvalid:
        return

    assert decode_trigger(encode_trigger(found)).trigger == found


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy.create(misfire_grace=1.5, coalesce=False, catch_up=7, max_instances=3, overlap="queue", max_queued=5),
        Policy.create(misfire_grace=0, overlap="cancel", max_instances=1),
    ],
)
def test_a_policy_comes_back_equal(policy: Policy) -> None:
    assert decode_policy(encode_policy(policy)) == policy


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"version": 0}, "version=0"),
        ({"version": 1, "misfire_grace": "1"}, "misfire_grace='1'"),
        ({"version": 1, "coalesce": "false"}, "coalesce='false'"),
        ({"version": 1, "catch_up": 1001}, "catch_up=1001"),
        ({"version": 1, "max_instances": 0}, "max_instances=0"),
        ({"version": 1, "overlap": "wait"}, "overlap='wait'"),
        ({"version": 1, "overlap": ["skip"]}, "overlap="),
        ({"version": 1, "patience": 1}, "patience=1: is not a member"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(form: dict[str, Any], words: str) -> None:
    with pytest.raises(TriggerInvalid, match=words):
        decode_policy(msgspec.json.encode(form))
