"""Recorded frames of RabbitMQ and of aiormq (tests/corpus/rabbitmq), read and written by ours, in any chunks.

What they mean was told by pamqp when they were recorded.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import Struct
from pamqp import commands
from pamqp import frame as pamqp_frame

from callboard.brokers.contract import BODY_LIMIT
from callboard.brokers.message import Message
from callboard.brokers.rabbitmq import codec, framing, tolerant
from callboard.brokers.rabbitmq.assembly import Assembly
from callboard.brokers.rabbitmq.delivery import Address
from callboard.brokers.rabbitmq.strainer import Strainer
from callboard.brokers.rabbitmq.tap import Taker, Tap
from corpus.rabbitmq.reading import KEPT, Event, digest, expected_of, frames_in

CORPUS = Path(__file__).parents[1] / "corpus" / "rabbitmq"
CHUNKINGS = 12


class Recording(Struct, frozen=True):
    about: str
    recorded: dict[str, str]
    frame_max: int
    channel: int
    expected: list[Event]
    server: list[str]
    client: list[str]

    @property
    def said(self) -> bytes:
        return bytes.fromhex("".join(self.server))

    @property
    def heard(self) -> list[bytes]:
        return [bytes.fromhex(frame) for frame in self.client]


RECORDINGS = {path.stem: Recording(**json.loads(path.read_text())) for path in sorted(CORPUS.glob("*.json"))}
every_recording = pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS.keys())


class Witness:
    """Writes down what it is told, in the words of the recording."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def delivered(self, tag: int, redelivered: bool, address: Address, header: bytes, body: bytes) -> None:
        found = tolerant.properties(header)
        if tolerant.UNDECODABLE in found.headers:
            properties: dict[str, Any] = {"undecodable": True}
        else:
            properties = {name: getattr(found, name) for name in KEPT} | {"headers": repr(found.headers)}
        self.events.append(
            ["delivered", tag, redelivered, address.exchange, address.routing_key, properties, digest(body)]
        )

    def returned(self, header: bytes) -> None:
        self.events.append(["returned", tolerant.properties(header).message_id])

    def confirmed(self, tag: int, multiple: bool, taken: bool) -> None:
        self.events.append(["confirmed", tag, multiple, taken])

    def ended(self, code: int, reason: str) -> None:
        self.events.append(["ended", code, reason])

    def blocked(self, blocked: bool) -> None:
        self.events.append(["blocked", blocked])


class Reading:
    """What came of one stream of bytes: events, and what went on to aiormq."""

    def __init__(self, recording: Recording, taker: Callable[[Witness], Taker]) -> None:
        self.witness = Witness()
        self.tap = Tap(lost=lambda: None, blocked=self.witness.blocked)
        self.tap.listen(recording.channel, taker(self.witness))

    async def read(self, chunks: Iterator[bytes]) -> bytes:
        for chunk in chunks:
            self.tap.data_received(chunk)
        self.tap.reader.feed_eof()
        return await self.tap.reader.read()

    @property
    def events(self) -> list[Event]:
        return self.witness.events


def assembled(recording: Recording) -> Reading:
    return Reading(recording, lambda witness: Assembly(recording.channel, witness, BODY_LIMIT))


def strained(recording: Recording, body_limit: int = BODY_LIMIT) -> Reading:
    return Reading(recording, lambda witness: Strainer(witness, body_limit))


def chunked(data: bytes, random: Random, largest: int) -> Iterator[bytes]:
    while data:
        size = random.randint(1, largest)
        yield data[:size]
        data = data[size:]


def told(expected: Sequence[Event]) -> list[Event]:
    return [event for event in expected if event[0] != "passed"]


def passed(expected: Sequence[Event]) -> list[str]:
    return [event[1] for event in expected if event[0] == "passed"]


def names_of(frames: bytes) -> list[str]:
    return [type(pamqp_frame.unmarshal(raw)[2]).__name__ for raw in frames_in(frames)]


def without_our_heartbeats(names: list[str], wanted: list[str]) -> list[str]:
    """Ours tell aiormq that the server lives."""
    return names if "Heartbeat" in wanted else [name for name in names if name != "Heartbeat"]


def test_the_corpus_has_every_scene_and_was_recorded_with_versions_that_are_pinned() -> None:
    kinds = {event[0] for recording in RECORDINGS.values() for event in recording.expected}
    assert kinds == {"delivered", "returned", "confirmed", "ended", "blocked", "passed"}
    for recording in RECORDINGS.values():
        assert framing.unknown_versions(lambda package, known=recording.recorded: known[package]) == []
    names = {name for recording in RECORDINGS.values() for name in passed(recording.expected)}
    assert {"Heartbeat", "FlowOk", "Close", "Cancel", "Blocked", "Unblocked"} <= names


@every_recording
async def test_what_was_recorded_is_read_as_pamqp_reads_it_in_any_chunks(recording: Recording) -> None:
    whole = assembled(recording)
    left = await whole.read(iter([recording.said]))
    assert whole.events == told(recording.expected)
    wanted = passed(recording.expected)
    assert without_our_heartbeats(names_of(left), wanted) == wanted
    for seed in range(CHUNKINGS):
        random = Random(seed)
        reading = assembled(recording)
        await reading.read(chunked(recording.said, random, random.choice((1, 2, 9, 100, 5000))))
        assert reading.events == told(recording.expected), f"chunks of seed {seed}"


@every_recording
async def test_heartbeats_at_every_boundary_change_nothing(recording: Recording) -> None:
    reading = assembled(recording)
    frames = b"".join(raw + codec.HEARTBEAT_FRAME for raw in frames_in(recording.said))
    await reading.read(chunked(frames, Random(1), 300))
    assert reading.events == told(recording.expected)


@every_recording
async def test_the_plain_path_passes_on_what_pamqp_can_read_and_changes_nothing_else(recording: Recording) -> None:
    reading = strained(recording)
    left = await reading.read(chunked(recording.said, Random(2), 700))
    assert [undecodable_or(event) for event in told(expected_of(left, recording.channel))] == told(recording.expected)
    assert reading.events == [event for event in recording.expected if event[0] in ("ended", "blocked")]
    for raw, original in zip(but_heartbeats(left), but_heartbeats(recording.said), strict=True):
        pamqp_frame.unmarshal(raw)
        assert raw == original or not readable(original)


def undecodable_or(event: Event) -> Event:
    """On the plain path an undecodable header has become one that says so."""
    if event[0] == "delivered" and tolerant.UNDECODABLE in event[5]["headers"]:
        return [*event[:5], {"undecodable": True}, event[6]]
    return event


def but_heartbeats(data: bytes) -> list[bytes]:
    return [raw for raw in frames_in(data) if raw != codec.HEARTBEAT_FRAME]


def readable(raw: bytes) -> bool:
    try:
        pamqp_frame.unmarshal(raw)
    except Exception:  # whatever it raises
        return False
    return True


@every_recording
async def test_a_stream_that_breaks_off_anywhere_tells_a_beginning_of_the_events(recording: Recording) -> None:
    events = told(recording.expected)
    random = Random(3)
    for _ in range(10):
        reading = assembled(recording)
        end = random.randrange(len(recording.said))
        await reading.read(chunked(recording.said[:end], random, 400))
        assert reading.events == events[: len(reading.events)]


@every_recording
async def test_changed_bytes_are_read_as_something_else_or_end_the_connection(recording: Recording) -> None:
    random = Random(4)
    for make in (assembled, strained):
        for _ in range(40):
            data = bytearray(recording.said)
            for _ in range(random.randint(1, 4)):
                data[random.randrange(len(data))] = random.randrange(256)
            with suppress(IndexError, struct.error):  # asyncio ends the connection when data_received raises
                await make(recording).read(chunked(bytes(data), random, 3000))


async def test_a_long_body_is_cut_on_the_way_in_and_the_next_delivery_is_whole() -> None:
    recording = RECORDINGS["deliveries"]
    wanted = told(recording.expected)
    for make in (
        lambda witness: Assembly(recording.channel, witness, 100),
        lambda witness: Strainer(witness, 100),
    ):
        reading = Reading(recording, make)
        left = await reading.read(chunked(recording.said, Random(5), 900))
        events = reading.events or told(expected_of(left, recording.channel))
        assert [event[:6] for event in events if event[0] == "delivered"] == [
            event[:6] for event in wanted if event[0] == "delivered"
        ]


# What we write


def published(recording: Recording) -> Iterator[tuple[bytes, list[Any]]]:
    """Each publish of aiormq's: its bytes, and its frames as pamqp reads them."""
    raw, frames = b"", []
    for frame in recording.heard:
        _, channel, decoded = pamqp_frame.unmarshal(frame)
        if isinstance(decoded, commands.Basic.Publish):
            raw, frames = b"", []
        if channel == recording.channel and (frames or isinstance(decoded, commands.Basic.Publish)):
            raw, frames = raw + frame, [*frames, decoded]
            if len(frames) > 1 and sum(len(body.value) for body in frames[2:]) == frames[1].body_size:
                yield raw, frames
                raw, frames = b"", []


OURS = {
    "content_type",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
}


def test_what_we_publish_is_byte_for_byte_what_aiormq_published() -> None:
    compared = 0
    for recording in RECORDINGS.values():
        for raw, (method, head, *bodies) in published(recording):
            given = {name: value for name, value in dict(head.properties).items() if value not in (None, "")}
            if not {"content_type", "delivery_mode", "message_id"} <= set(given) <= OURS:
                continue
            message = Message(
                exchange=method.exchange,
                routing_key=method.routing_key,
                body=b"".join(body.value for body in bodies),
                priority=given.get("priority"),
                headers=given.get("headers"),
                correlation_id=given.get("correlation_id"),
                reply_to=given.get("reply_to"),
                expiration=int(given["expiration"]) if "expiration" in given else None,
                persistent=given["delivery_mode"] == 2,
                mandatory=method.mandatory,
                content_type=given["content_type"],
            )
            ours = codec.publish_frames(
                channel=recording.channel,
                shape=codec.shape(message),
                message_id=given["message_id"].encode(),
                body=message.body,
                frame_max=recording.frame_max,
            )
            assert ours == raw
            compared += 1
    assert compared > 50


def test_what_we_settle_is_byte_for_byte_what_aiormq_settled() -> None:
    seen = set()
    for recording in RECORDINGS.values():
        for raw in recording.heard:
            channel, decoded = pamqp_frame.unmarshal(raw)[1:]
            match decoded:
                case commands.Basic.Ack():
                    ours = codec.ack_frame(channel=channel, tag=decoded.delivery_tag or 0, multiple=decoded.multiple)
                case commands.Basic.Nack():
                    ours = codec.nack_frame(channel=channel, tag=decoded.delivery_tag or 0, requeue=decoded.requeue)
                case _:
                    continue
            assert ours == raw
            seen.add((type(decoded).__name__, bool(decoded.multiple)))
    assert seen == {("Ack", False), ("Ack", True), ("Nack", False)}


def test_a_frame_that_is_no_amqp_ends_the_connection_with_the_reason() -> None:
    async def reason(data: bytes) -> str:
        tap = Tap(lost=lambda: None, blocked=lambda blocked: None)
        tap.data_received(data)
        return tap.reason

    wrong_end = struct.pack(">BHI", 1, 1, 4) + b"\0\x3c\0\x3c\xcf"
    endless = struct.pack(">BHI", 1, 1, 2**31) + b"\0"
    assert "0xcf" in asyncio.run(reason(wrong_end))
    assert str(2**31) in asyncio.run(reason(endless))
