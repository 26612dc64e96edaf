"""X1: messages whose properties no decoder likes.

Injects: the killers of aio-pika's decoder, odd frames, every type of AMQP's field tables, empty and largest values and
tables nested to 10,000, each as a submission between good ones, a killer between 100; the killers on the exchanges of
jobs, events and commands too. Bites: the killers close the connection of a plain aio-pika consumer (tests/integration
shows it).
Passes: no actor's connection is lost, no actor restarted, each good job ran once, none of them was put aside, each bad
message is in `callboard.dead` with its reason, or ran where only its headers are odd.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from faults import ledger
from faults.door import QUEUE, Door, good, unfinished
from integration.raw_amqp import (
    CONTENT_TYPE,
    HEADERS,
    KILLERS,
    MESSAGE_ID,
    ODD,
    PRIORITY,
    TIMESTAMP,
    RawPublisher,
    nested_arrays,
    nested_tables,
    table,
    text,
)

BETWEEN = 100  # good ones around each killer
AROUND = 10  # and around each of what is only odd
MAILBOXES = 3  # of the worker, the scanner and the recovery
CONTENT_ENCODING, CORRELATION_ID, REPLY_TO, TYPE, APP_ID = (1 << bit for bit in (14, 10, 9, 5, 3))

# Field types that RabbitMQ knows: an empty or smallest, and a largest value of each.
FIELDS: dict[str, bytes] = {
    "t0": b"t\x00", "t1": b"t\xff", "b min": b"b\x80", "B max": b"B\xff", "s min": b"s\x80\x00", "u max": b"u\xff\xff",
    "I min": b"I\x80\x00\x00\x00", "i max": b"i\xff\xff\xff\xff", "l min": b"l\x80" + b"\x00" * 7,
    "l max": b"l\x7f" + b"\xff" * 7, "f max": b"f\x7f\x7f\xff\xff", "d max": b"d\x7f\xef" + b"\xff" * 6,
    "D": b"D\x00\xff\xff\xff\xff", "T0": b"T" + b"\x00" * 8, "V": b"V", "S empty": b"S" + table(b""),
    "S large": b"S" + table(b"x" * 30_000), "x empty": b"x" + table(b""), "x bytes": b"x" + table(bytes(range(256))),
    "A empty": b"A" + table(b""), "F empty": b"F" + table(b""),
}  # fmt: skip

NAN = b"d" + struct.pack(">d", float("nan"))

MADE: dict[str, tuple[int, bytes]] = {
    **ODD,
    **{f"field {name}": (HEADERS, table(text(b"h") + field)) for name, field in FIELDS.items()},
    "empty table": (HEADERS, table(b"")),
    "empty name": (HEADERS, table(text(b"") + b"V")),
    "name of 128 bytes": (HEADERS, table(text(b"n" * 128) + b"V")),
    "1,000 fields": (HEADERS, table(b"".join(b"\x04%04db\x01" % number for number in range(1000)))),
    "20 nested tables": (HEADERS, nested_tables(20)),
    "10,000 nested tables": (HEADERS, nested_tables(10_000)),
    "10,000 nested arrays": (HEADERS, nested_arrays(10_000)),
    "empty properties": (
        CONTENT_TYPE | CONTENT_ENCODING | CORRELATION_ID | REPLY_TO | MESSAGE_ID | TYPE | APP_ID,
        text(b"") * 7,
    ),
    "largest properties": (
        CORRELATION_ID | REPLY_TO | MESSAGE_ID | TYPE | APP_ID,
        text(b"x" * 255) * 5,
    ),
    "content_type of 255": (CONTENT_TYPE, text(b"x" * 255)),
    "content_encoding of 255": (CONTENT_ENCODING, text(b"x" * 255)),
    "priority of 0": (PRIORITY, b"\x00"),
    "timestamp of 0": (TIMESTAMP, struct.pack(">Q", 0)),
}


@pytest.mark.slow
async def test_no_property_of_a_message_stops_an_actor_or_harms_a_neighbour(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    frames = {**KILLERS, **MADE}
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url) as door:
        door.start(intakes=2)
        await door.up()
        goods: list[str] = []
        async with RawPublisher(amqp_url) as raw:
            for number, (name, (flags, properties)) in enumerate(frames.items()):
                ids = [f"good-{number}-{index}" for index in range(BETWEEN if name in KILLERS else AROUND)]
                goods += ids
                await door.submit([good(name) for name in ids[: len(ids) // 2]])
                await raw.publish(
                    QUEUE, good(f"frame-{number}"), flags=flags, properties=properties, exchange=door.names.submit
                )
                await door.submit([good(name) for name in ids[len(ids) // 2 :]])
            for flags, properties in KILLERS.values():
                for exchange, key in (
                    (door.names.jobs, QUEUE),
                    (door.names.control, "all"),
                    (door.names.events, f"{QUEUE}.completed"),
                ):
                    await raw.publish(key, b"not ours", flags=flags, properties=properties, exchange=exchange)

        async with RawPublisher(
            amqp_url
        ) as raw:  # for which RabbitMQ 3 closes this connection, which is the stranger's
            with suppress(AssertionError, asyncio.IncompleteReadError):
                await raw.publish(
                    QUEUE, good("nan"), flags=HEADERS, properties=table(text(b"n") + NAN), exchange=door.names.submit
                )

        for _ in range(300):  # what is odd settles after what is good: each frame, and what came by the other exchanges
            others = len(KILLERS) * (1 + MAILBOXES)
            jobs, letters = await door.settled(final=len(goods), letters=len(KILLERS) + others, ids=goods, seconds=90)
            odd = sum(f"frame-{number}" in jobs for number in range(len(frames)))
            if odd + len(letters) >= len(frames) + others:
                break
            await asyncio.sleep(0.1)
        ran = [entry.run.job for entry in ledger.read(door.scene.ledger) if entry.event is ledger.Event.START]
        aside = {number: letter for letter in letters for number in range(len(frames))
                 if letter.body == good(f"frame-{number}")}  # fmt: skip
        reasons = Counter(letter.reason for letter in letters)
        print(f"{len(goods)} good jobs, {len(frames)} frames, put aside: {dict(reasons)}")

        assert unfinished(jobs, goods) == []
        assert sorted(name for name in ran if name.startswith("good-")) == sorted(goods)
        assert [letter for letter in letters if b"good-" in letter.body] == []
        for number, name in enumerate(frames):
            assert (number in aside) != (f"frame-{number}" in jobs), f"{name}: either it ran or it was put aside"
            if name in KILLERS:
                assert aside[number].reason == "undecodable-properties", name
        malformed = Counter(letter.exchange for letter in letters if letter.reason == "malformed")
        assert malformed == {door.names.jobs: len(KILLERS), door.names.control: len(KILLERS) * MAILBOXES}
        assert {aside[n].reason for n in aside} == {"undecodable-properties", "content-type", "content-encoding"}
        assert door.connections_lost() == []
        assert door.fleet.complaints() == []
        assert all(member.running and member.lives == 1 for member in door.fleet)
