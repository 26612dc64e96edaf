"""Our encoding and decoding of the five hot methods, against pamqp's."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header
from pamqp.body import ContentBody

from callboard.brokers.message import Message
from callboard.brokers.rabbitmq import codec, tolerant

short_text = st.text(max_size=60)
optional_text = st.none() | st.text(min_size=1, max_size=60)
values = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=20)
headers = st.none() | st.dictionaries(
    st.text(min_size=1, max_size=20), values | st.lists(values, max_size=3), max_size=4
)

messages = st.builds(
    Message,
    exchange=short_text,
    routing_key=short_text,
    body=st.binary(max_size=400),
    priority=st.none() | st.integers(0, 9),
    headers=headers,
    correlation_id=optional_text,
    reply_to=optional_text,
    expiration=st.none() | st.integers(0, 2**31),
    persistent=st.booleans(),
    mandatory=st.booleans(),
    content_type=st.text(min_size=1, max_size=60),
)


def frames_of(data: bytes) -> list[object]:
    found = []
    while data:
        consumed, _, decoded = frame.unmarshal(data)
        found.append(decoded)
        data = data[consumed:]
    return found


def packed(message: Message, *, frame_max: int = 131_072) -> bytes:
    shape = codec.shape(message)
    return codec.publish_frames(channel=7, shape=shape, message_id=b"id-1", body=message.body, frame_max=frame_max)


@given(messages)
def test_a_published_message_reads_as_the_same_in_pamqp(message: Message) -> None:
    written = packed(message, frame_max=108)
    publish, head, *bodies = frames_of(written)
    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key) == (message.exchange, message.routing_key)
    assert publish.mandatory == message.mandatory
    assert isinstance(head, header.ContentHeader)
    assert head.body_size == len(message.body)
    found = head.properties
    assert found.message_id == "id-1"
    assert found.content_type == message.content_type
    assert found.priority == message.priority
    assert (found.correlation_id, found.reply_to) == (message.correlation_id, message.reply_to)
    assert found.expiration == (None if message.expiration is None else str(message.expiration))
    assert found.delivery_mode == (2 if message.persistent else 1)
    assert found.headers == (message.headers or None)
    assert all(isinstance(body, ContentBody) and len(body) <= 100 for body in bodies)
    assert b"".join(body.value for body in bodies if isinstance(body, ContentBody)) == message.body


@given(messages)
def test_the_properties_of_a_message_are_read_back(message: Message) -> None:
    _, head, *_ = frames_of(packed(message))
    assert isinstance(head, header.ContentHeader)
    found = tolerant.properties(head.marshal())
    assert found == tolerant.Properties(
        content_type=message.content_type,
        headers=message.headers or {},
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id="id-1",
    )


@given(st.binary(max_size=200), st.integers(0, 2**16 - 1))
def test_any_content_header_is_read_as_pamqp_reads_it_or_as_undecodable(data: bytes, flags: int) -> None:
    payload = struct.pack(">HHQH", 60, 0, 3, flags) + data
    found = tolerant.properties(payload)
    expected = header.ContentHeader()
    try:
        expected.unmarshal(payload)
    except Exception:
        assert tolerant.UNDECODABLE in found.headers
        return
    if tolerant.UNDECODABLE in found.headers:
        return  # ours is stricter about what is cut off
    assert found.message_id == expected.properties.message_id
    assert repr(found.headers) == repr(expected.properties.headers or {})


@pytest.mark.parametrize("data", [b"", b"\0", b"\0" * 13, b"\xff" * 14, b"\xff" * 300])
def test_a_content_header_that_is_cut_off_is_undecodable(data: bytes) -> None:
    assert tolerant.UNDECODABLE in tolerant.properties(data).headers


def test_acks_and_nacks_are_pamqps() -> None:
    assert codec.ack_frame(channel=3, tag=2**40, multiple=True) == frame.marshal(commands.Basic.Ack(2**40, True), 3)
    assert codec.ack_frame(channel=3, tag=1, multiple=False) == frame.marshal(commands.Basic.Ack(1, False), 3)
    for requeue in (True, False):
        assert codec.nack_frame(channel=3, tag=9, requeue=requeue) == frame.marshal(
            commands.Basic.Nack(9, False, requeue), 3
        )


def test_a_routing_key_that_is_not_utf8_is_read_with_replacements() -> None:
    assert codec.read_address(b"\x02ex" + b"\x02\xff\xfe") == ("ex", "\ufffd\ufffd")


@given(st.lists(messages, max_size=20))
def test_a_remembered_shape_is_the_one_that_would_be_made(several: list[Message]) -> None:
    shapes = codec.Shapes()
    for message in several * 2:
        assert shapes.of(message) == codec.shape(message)


def test_no_more_shapes_are_remembered_than_the_limit() -> None:
    shapes = codec.Shapes()
    for number in range(1000):
        shapes.of(Message(exchange="e", routing_key=f"{number}", body=b""))
        assert len(shapes) <= codec.Shapes.REMEMBERED


def test_what_amqp_cannot_carry_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="255"):
        codec.shape(Message(exchange="e", routing_key="k" * 256, body=b""))
    for endless in (float("nan"), [1.0, float("inf")], {"deep": [{"er": float("-inf")}]}):
        with pytest.raises(ValueError, match="finite"):
            codec.shape(Message(exchange="e", routing_key="k", body=b"", headers={"h": endless}))
    for headers in ({"h": 2**70}, {"h": object()}, {"h": [(1, 2)]}, {"h": b"bytes"}, {1: "h"}):
        with pytest.raises(ValueError, match="headers"):
            codec.shape(Message(exchange="e", routing_key="k", body=b"", headers=headers))


def test_headers_that_no_frame_can_carry_are_refused() -> None:
    message = Message(exchange="x", routing_key="k", body=b"", headers={"a": "x" * 70_000, "b": "x" * 60_000})
    with pytest.raises(ValueError, match="bytes of headers"):
        codec.shape(message)
    codec.shape(message, frame_max=140_000)
