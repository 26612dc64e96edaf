"""Fuzzing guided by coverage, of everything that reads what others wrote; for as long as it is let run, by hand:

    pip install atheris                                          in an environment that also has callboard
    python tests/faults/coverage_fuzz.py wire -max_total_time=600
    python tests/faults/coverage_fuzz.py wire FILE               once more, with an input that failed

A target takes any bytes and raises nothing but what it says it raises; libFuzzer keeps the input that shows otherwise
in a file. atheris is no dependency of the tests: test_coverage_fuzz.py runs the targets on a few inputs without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 10  # of one input; libFuzzer's own would be twenty minutes
MAX_BYTES = 65_536

Target = Callable[[bytes], None]


def wire() -> Target:
    """Bundles, events, commands and payloads."""
    from msgspec import DecodeError

    from callboard.runtime import wire

    def read(data: bytes) -> None:
        bundle, malformed = wire.decode_bundle(data)
        assert bundle.jobs or malformed
        for ticket in bundle.jobs:
            wire.encode_body(wire.body_of(ticket))
        wire.decode_events(data)
        wire.decode_command(data)
        try:
            body = wire.decode_body(data)
        except (DecodeError, UnicodeDecodeError, RecursionError):
            return
        assert wire.decode_body(wire.encode_body(body)) == body

    return read


def submission() -> Target:
    """Submissions, as intake reads them: never raises; what is taken in can be read again."""
    from callboard import Callboard
    from callboard.brokers.topology import Names
    from callboard.runtime.draft import Draft
    from callboard.runtime.submission import SubmissionReader
    from callboard.runtime.wire import decode_body, encode_body

    names = Names("fuzz")
    reader = SubmissionReader(Callboard(broker="memory://", store="memory://"), names)

    def read(data: bytes) -> None:
        found = reader.read(Draft(body=data, exchange=names.submit, routing_key="q"))
        assert found.parts
        for job in found.jobs:
            assert encode_body(decode_body(job.payload)) == job.payload

    return read


def properties() -> Target:
    """AMQP's content headers, and what a dead letter says of itself."""
    from callboard.brokers.rabbitmq import tolerant
    from callboard.brokers.topology import Names
    from callboard.runtime.dead_letter import read_letter
    from callboard.runtime.draft import Draft

    names = Names("fuzz")

    def read(data: bytes) -> None:
        found = tolerant.properties(data)
        draft = Draft(
            body=b"", exchange=names.dead, routing_key="q", headers=found.headers, message_id=found.message_id
        )
        read_letter(draft, names)

    return read


def triggers() -> Target:
    """Crontab expressions, and triggers as text and as they are stored. TriggerInvalid alone."""
    from datetime import UTC, datetime

    import msgspec

    from callboard.runtime.triggers import Cron, TriggerInvalid
    from callboard.runtime.triggers.codec import decode_policy, decode_trigger, trigger_from_json

    moment = datetime(2026, 3, 1, tzinfo=UTC)

    def read(data: bytes) -> None:
        text = data.decode(errors="replace")
        for attempt in (
            lambda: Cron(text).next_after(moment),
            lambda: trigger_from_json(msgspec.json.decode(data)),
            lambda: decode_trigger(data),
            lambda: decode_policy(data),
        ):
            try:
                attempt()
            except (TriggerInvalid, msgspec.DecodeError, UnicodeDecodeError):
                continue

    return read


def addresses() -> Target:
    """URLs of stores and brokers, as somebody wrote them. MetadataError and BrokerError alone."""
    from callboard.brokers.errors import BrokerError
    from callboard.brokers.rabbitmq import RabbitMQBroker
    from callboard.metadata.errors import MetadataError
    from callboard.metadata.mongo import MongoStore
    from callboard.metadata.redis import RedisStore
    from callboard.runtime.urls import masked

    stores: list[tuple[str, type[RedisStore | MongoStore]]] = [("mongodb", MongoStore)]
    stores += [(scheme, RedisStore) for scheme in ("redis", "rediss", "redis+cluster", "redis+sentinel")]

    def read(data: bytes) -> None:
        text = data.decode(errors="replace")
        for scheme, store in stores:
            with suppress(MetadataError):
                store.from_url(f"{scheme}://{text}", namespace="fuzz")
        with suppress(BrokerError):
            RabbitMQBroker.from_url(f"amqp://{text}", name="fuzz")
        masked(text)

    return read


def frames() -> Target:
    """What a server sends on the fast path: frames in any order, any bytes in them. Only the errors that end a
    connection."""
    from struct import error as StructError

    from callboard.brokers.rabbitmq import codec
    from callboard.brokers.rabbitmq.assembly import Assembly

    deaf = SimpleNamespace(
        delivered=lambda *_: None, returned=lambda *_: None, confirmed=lambda *_: None, ended=lambda *_: None
    )

    def read(data: bytes) -> None:
        assembly = Assembly(1, cast(Any, deaf), 1024)
        position = assembly.whole(data, 0)
        assert 0 <= position <= len(data)
        while len(data) - position > 8:
            kind, size = data[position], int.from_bytes(data[position + 1 : position + 3], "big")
            try:
                assembly.take(kind % 4, data[position + 3 : position + 3 + size])
            except (StructError, IndexError):
                return  # a server that cuts off its own arguments: the connection ends
            position += 3 + size
        codec.read_address(data + b"\0" * 512)

    return read


TARGETS: dict[str, Callable[[], Target]] = {
    target.__name__: target for target in (wire, submission, properties, triggers, addresses, frames)
}

_BODY = b'"id":"a","queue":"q","task":"t","created_at":1,"args":[1],"kwargs":{"b":2},"retries":3,"v":1'
# Where the search begins: what is read in C shows it no branches to follow.
SEEDS: dict[str, list[bytes]] = {
    "wire": [
        b"{" + _BODY + b"}",
        b'{"v":1,"epoch":"e","at":1,"jobs":[{"dispatch":2,' + _BODY + b"}]}",
        b'{"v":2,"jobs":[{"dispatch":2,"x":1,' + _BODY + b"}]}",
        b'{"v":1,"events":[{"event":"completed","job":"a","queue":"q","task":"t","at":1,"result":{"a":[]}}]}',
        b'{"v":1,"command":"cancel","queue":"q","jobs":["a"],"run_at":5}',
    ],
    "submission": [
        b'{"task":"t","id":"a","args":[1],"kwargs":{"b":null},"delay":1,"priority":3,"deduplication":{"id":"d"}}',
        b'[{"task":"t"},{"task":"u","run_at":"2030-01-31T09:00:00Z","meta":{"a":"\\ud800"}},5]',
    ],
    "properties": [
        b"\x00<\x00\x00" + b"\0" * 8 + b"\xb0\x80\x01j\x00\x00\x00\x08\x01hS\x00\x00\x00\x01x\x02\x02id",
        b"\x00<\x00\x00" + b"\0" * 8 + b"\x20\x00\x00\x00\x00\x07\x01hA\x00\x00\x00\x00",
    ],
    "triggers": [
        b"*/5 1-3,7 L * mon-fri",
        b'{"type":"every","seconds":5}',
        b'{"type":"cron","expression":"0 9 * * 1","zone":"Europe/Berlin"}',
    ],
    "addresses": [
        b"u:p@[::1]:6379/3?timeout=1&tls_ca=x",
        b"h1:1,h2:2/name?replicaSet=r&directConnection=true",
        b"u:p@h:5672/vhost?heartbeat=5&frames=plain",
    ],
    "frames": [
        b"\x01\x00\x10\x00\x3c\x00\x3c\x01c" + b"\0" * 9 + b"\x01x\x01y",
        b"\x01\x00\x0d\x00\x3c\x00\x50" + b"\0" * 9,
    ],
}


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import atheris  # only here: see above

    name, *rest = sys.argv[1:]
    with atheris.instrument_imports(include=["callboard", "croniter"]):
        target = TARGETS[name]()
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            (Path(corpus) / str(number)).write_bytes(seed)
        given = [sys.argv[0], f"-timeout={TIMEOUT_SECONDS}", f"-max_len={MAX_BYTES}", *rest]
        atheris.Setup(given if any(Path(one).exists() for one in rest) else [*given, corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
