"""Job <-> message: what was sent is what is read, and what is not ours is told apart, never raised."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from callboard.metadata.contract import Ready
from callboard.runtime.wire import (
    ABSENT,
    MAX_BUNDLE_BYTES,
    MAX_BUNDLE_JOBS,
    MAX_READ_JOBS,
    Body,
    Command,
    Event,
    Malformed,
    body_of,
    decode_body,
    decode_bundle,
    decode_command,
    decode_events,
    encode_body,
    encode_bundle,
    encode_command,
    encode_events,
    new_job,
    split_bundles,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def body(**members: Any) -> Body:
    return Body(**{"id": "j", "queue": "q", "task": "t", "created_at": 1} | members)


def ready(payload: bytes, dispatch: int = 1) -> Ready:
    return Ready("q", "j", dispatch, 5, payload)


def bundle_of(*bodies: Body, dispatch: int = 3) -> bytes:
    return encode_bundle([ready(encode_body(one), dispatch) for one in bodies], epoch="e", at=7)


@given(args=st.lists(json_values, max_size=3), meta=st.dictionaries(st.text(), json_values, min_size=1, max_size=3))
def test_arguments_and_meta_travel_as_the_very_bytes_that_were_sent(args: list[Any], meta: dict[str, Any]) -> None:
    raw_args, raw_meta = msgspec.json.encode(args), msgspec.json.encode(meta)
    sent = body(args=Raw(raw_args), meta=Raw(raw_meta), backoff=Raw(b"0.10"))
    bundle, malformed = decode_bundle(bundle_of(sent))
    assert malformed == []
    (ticket,) = bundle.jobs
    assert (bytes(ticket.args), bytes(ticket.meta), bytes(ticket.backoff)) == (raw_args, raw_meta, b"0.10")
    assert encode_body(body_of(ticket)) == encode_body(sent)


def test_a_bundle_carries_its_epoch_its_moment_and_each_dispatch() -> None:
    bundle, _ = decode_bundle(bundle_of(body(id="a"), body(id="b"), dispatch=9))
    assert (bundle.v, bundle.epoch, bundle.at) == (1, "e", 7)
    assert [(ticket.id, ticket.dispatch) for ticket in bundle.jobs] == [("a", 9), ("b", 9)]


def test_what_has_its_default_is_not_written_and_is_read_back_as_the_default() -> None:
    written = json.loads(encode_body(body()))
    assert written == {"id": "j", "queue": "q", "task": "t", "created_at": 1}
    read = decode_body(encode_body(body()))
    assert (bytes(read.args), bytes(read.kwargs), read.priority) == (b"[]", b"{}", 5)
    assert (read.meta, read.backoff) == (ABSENT, ABSENT)
    assert not read.meta


LATER = b'{"id":"j","queue":"q","task":"t","created_at":1,"v":2,"args":"packed"}'


def test_of_a_later_version_is_read_what_every_version_keeps() -> None:
    message = bundle_of(body(args=Raw(b"[1]"), priority=3)).replace(b'{"v":1', b'{"v":2', 1)
    bundle, malformed = decode_bundle(message)
    (ticket,) = bundle.jobs
    assert malformed == []
    assert (ticket.id, ticket.queue, ticket.task, ticket.created_at, ticket.dispatch) == ("j", "q", "t", 1, 3)
    assert (ticket.v, ticket.later, bytes(ticket.args)) == (2, True, b"[]")


def test_a_payload_keeps_its_version_in_the_bundle_of_an_older_sender() -> None:
    message = encode_bundle([ready(encode_body(body(id="a"))), ready(LATER)], epoch="e", at=7)
    bundle, malformed = decode_bundle(message)
    assert [(ticket.id, ticket.v, ticket.later) for ticket in bundle.jobs] == [("a", 1, False), ("j", 2, True)]
    assert (bundle.epoch, bundle.at, malformed) == ("e", 7, [])
    assert (decode_body(LATER).v, decode_body(LATER).task) == (2, "t")


@pytest.mark.parametrize(
    "message",
    [b'{"v":2}', b'{"v":2,"jobs":"packed"}', b'{"v":2,"jobs":[]}', b'{"v":99999999999999999999999,"jobs":{"a":1}}'],
)
def test_what_cannot_be_parked_of_a_later_version_is_for_somebody_else(message: bytes) -> None:
    bundle, (malformed,) = decode_bundle(message)
    assert bundle.jobs == []
    assert (malformed.body, malformed.later) == (message, True)
    assert "is newer than this one's 1" in malformed.reason


def test_a_ticket_of_a_later_version_that_cannot_be_parked_is_told_from_a_broken_one() -> None:
    message = encode_bundle([ready(b'{"name":"j","v":2}'), ready(b'{"name":"j"}')], epoch="e", at=7)
    bundle, malformed = decode_bundle(message)
    assert (bundle.jobs, [part.later for part in malformed]) == ([], [True, False])


def test_a_bundle_without_jobs_is_malformed() -> None:
    message = b'{"v":1,"epoch":"e","at":1,"jobs":[]}'
    assert [part.reason for part in decode_bundle(message)[1]] == ["it holds no jobs"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_message_of_ever_so_many_jobs_of_which_one_is_broken_is_put_aside_as_one(version: int) -> None:
    body = b'{"v":%d,"epoch":"e","at":1,"jobs":[%s0]}' % (version, b"0," * MAX_READ_JOBS)
    bundle, malformed = decode_bundle(body)
    assert bundle.jobs == []
    assert [(part.body, part.later) for part in malformed] == [(body, version > 1)]
    _, each = decode_bundle(body.replace(b"0,", b"", 1))
    assert len(each) == MAX_READ_JOBS


def test_members_that_a_newer_version_added_are_passed_over() -> None:
    message = bundle_of(body()).replace(b'"dispatch":3', b'"dispatch":3,"color":"red"')
    bundle, malformed = decode_bundle(message)
    assert (len(bundle.jobs), malformed) == (1, [])


def test_one_bad_ticket_does_not_spoil_the_others_of_its_bundle() -> None:
    good = encode_body(body(id="good"))
    message = encode_bundle([ready(good), ready(b'{"id":5}'), ready(good)], epoch="e", at=7)
    bundle, malformed = decode_bundle(message)
    assert [ticket.id for ticket in bundle.jobs] == ["good", "good"]
    assert [part.body for part in malformed] == [b'{"dispatch":1,"id":5}']
    assert (bundle.epoch, bundle.at) == ("e", 7)


NOT_OURS = [
    b"", b"null", b"[]", b"5", b"{}", b'"x"', b"\xff\xfe", b'{"v":1}', b'{"v":"1","jobs":[]}', b'{"v":1,"jobs":{}}',
    b"{", b'{"v":1,"epoch":"\xff","at":1,"jobs":[]}', b"[" * 100_000, b'{"v":1,"jobs":[' + b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("message", NOT_OURS, ids=lambda message: repr(message[:30]))
def test_bytes_that_are_not_ours_never_raise(message: bytes) -> None:
    bundle, malformed = decode_bundle(message)
    assert bundle.jobs == []
    assert [(part.body, part.later) for part in malformed] == [(message, False)]
    assert decode_events(message) == []
    assert isinstance(command := decode_command(message), Malformed)
    assert (command.body, command.later) == (message, False)


@given(st.binary(max_size=200))
def test_no_bytes_raise(message: bytes) -> None:
    decode_bundle(message)
    decode_events(message)
    decode_command(message)


def test_events_and_commands_come_back_equal() -> None:
    event = Event(event="failed", job="j", queue="q", task="t", at=5, dispatch=2, attempt=2, worker="w", error="E: x")
    assert decode_events(encode_events([event, event])) == [event, event]
    command = Command(command="cancel", queue="q", jobs=("a", "b"))
    assert decode_command(encode_command(command)) == command
    later = decode_command(encode_command(Command(command="wake", v=2)))
    assert isinstance(later, Malformed)
    assert (later.later, later.reason) == (True, "wire version 2 is newer than this one's 1")


def test_bundles_are_cut_by_number_and_by_size() -> None:
    small = [ready(b'{"x":1}')] * (2 * MAX_BUNDLE_JOBS + 1)
    assert [len(one) for one in split_bundles(small)] == [MAX_BUNDLE_JOBS, MAX_BUNDLE_JOBS, 1]
    half = ready(b"x" * (MAX_BUNDLE_BYTES // 2))
    assert [len(one) for one in split_bundles([half] * 5)] == [2, 2, 1]
    huge = ready(b"x" * (MAX_BUNDLE_BYTES + 1))
    assert [len(one) for one in split_bundles([huge, half, huge])] == [1, 1, 1]
    assert list(split_bundles([])) == []


def test_an_adopted_job_has_the_payload_that_its_producer_wrote() -> None:
    original = body(args=Raw(b"[1.0]"), expires_at=99, priority=2, meta=Raw(b'{"a":null}'))
    bundle, _ = decode_bundle(bundle_of(original))
    adopted = new_job(body_of(bundle.jobs[0]))
    assert adopted.payload == encode_body(original)
    assert (adopted.id, adopted.queue, adopted.priority, adopted.expires_at) == ("j", "q", 2, 99)
