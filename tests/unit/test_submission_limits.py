"""Whatever a stranger submits, what is said of it is short: the reply, and the headers of a letter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from callboard import Callboard
from callboard.actors.intake import letters_of
from callboard.brokers.message import Message, Receipt
from callboard.brokers.rabbitmq import codec
from callboard.brokers.topology import Names
from callboard.runtime.clock import SystemClock
from callboard.runtime.connections import Connections
from callboard.runtime.dead_letters import DeadLetters
from callboard.runtime.draft import Draft
from callboard.runtime.replies import MAX_REPLY, reply
from callboard.runtime.strict_json import Refusal
from callboard.runtime.submission import MEMBERS, Refused, Submission, SubmissionReader

MAX_HEADERS = 32 * 1024  # what we decode of a message
NAMES = Names()
LONG = {"letters": "x" * 70_000 + ":", "digits": "1" * 70_000, "control": "\x01" * 20_000}


def read(body: bytes, *, message_id: str | None = None, **headers: Any) -> Draft:
    """A submission as it arrives."""
    return Draft(
        body=body,
        exchange=NAMES.submit,
        routing_key="emails",
        message_id=message_id,
        correlation_id="c-1",
        reply_to="amq.gen-a",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


class Recording:
    """A broker that takes everything, up to so many bytes of headers: beyond it raises, as RabbitMQ's does."""

    def __init__(self, frame_max: int = 131_072) -> None:
        self.taken: list[Message] = []
        self.frame_max = frame_max

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        for message in messages:
            if header_bytes(message) > self.frame_max:
                raise ValueError("too much for a frame")
        self.taken.extend(messages)
        return [Receipt.CONFIRMED] * len(messages)


def header_bytes(message: Message) -> int:
    return len(codec.shape(message).properties)


def dead_letters(app: Callboard, broker: Recording) -> DeadLetters:
    connections = SimpleNamespace(clock=SystemClock(), names=NAMES, settings=app.settings, broker=broker)
    return DeadLetters(cast(Connections, connections))


@pytest.fixture
def app() -> Callboard:
    return Callboard(store="memory://", broker="memory://")


def outcomes(submission: Submission) -> list[Refusal]:
    """As if nothing of it could be taken."""
    return [one.refusal if isinstance(one, Refused) else Refusal("store-error", "x" * 500) for one in submission.parts]


async def judged(app: Callboard, delivery: Draft) -> tuple[Submission, dict[str, Any], list[Message]]:
    """What is read, and what is told: to the producer, and to an operator. Both within their limits."""
    submission = SubmissionReader(app, NAMES).read(delivery)
    refusals = outcomes(submission)
    told = reply(delivery, refusals, array=submission.array).body
    assert len(told) <= MAX_REPLY
    broker = Recording()
    assert await dead_letters(app, broker).keep(list(letters_of(submission, refusals))) == []
    assert all(header_bytes(message) <= MAX_HEADERS for message in broker.taken)
    return submission, json.loads(told), broker.taken


@pytest.mark.parametrize("kind", sorted(LONG))
@pytest.mark.parametrize("member", [*sorted(MEMBERS), "unknown"])
async def test_a_long_value_of_any_member_is_refused_in_few_words(app: Callboard, member: str, kind: str) -> None:
    long = LONG[kind]
    for value in (
        long,
        [long],
        {long: 1},
        {"id": long},
        {"id": "a", "ttl": long},
        {"type": long},
        {"id": "a", long: 1},
    ):
        job = {"task": "t", member: value} | ({"run_at": 1} if member == "delay" else {})
        named: dict[str, Any] = {long: 1, "task": "t"} if member == "unknown" else job
        for body in (named, [named, {"task": "t"}]):
            submission, told, _ = await judged(app, read(json.dumps(body).encode()))
            assert told["ok"] is False
            assert len(told["error"]["message"]) <= 500
            assert "left_out" not in told
            assert len(told.get("jobs", [0])) == len(submission.parts)


async def test_a_reply_that_is_too_long_leaves_out_the_jobs_at_the_end(app: Callboard) -> None:
    _, told, _ = await judged(
        app, read(json.dumps([{"task": "t", "id": f"{number}"} for number in range(999)]).encode())
    )
    assert told["left_out"] + len(told["jobs"]) == 999
    assert told["jobs"]


@pytest.mark.parametrize("long", ["a" * 32_000, "\x01" * 32_000, '"' * 32_000, "é" * 129, "\ud800"])
@pytest.mark.parametrize("body", [b"nope", b'{"task":"t"}', b'[{"task":"t"},0]', b'{"task":"t","id":1}'])
async def test_a_long_message_id_is_no_id_and_not_kept(app: Callboard, body: bytes, long: str) -> None:
    delivery = read(body, message_id="m-1", callboard_message_id=long)
    submission, told, kept = await judged(app, delivery)
    assert submission.jobs == []
    assert told["ok"] is False
    for message in kept:
        assert message.headers is not None
        assert json.loads(message.headers["callboard-properties"])["message_id"] == "m-1"


async def test_a_letter_that_no_frame_can_carry_is_kept_without_what_is_known_of_it(app: Callboard) -> None:
    delivery = read(b"nope", h="x" * 5000)
    submission = SubmissionReader(app, NAMES).read(delivery)
    broker = Recording(frame_max=1000)
    assert await dead_letters(app, broker).keep(list(letters_of(submission, outcomes(submission)))) == []
    (message,) = broker.taken
    assert message.body == b"nope"
    assert set(message.headers or ()) == {f"callboard-{name}" for name in ("letter", "reason", "time", "size")}


async def test_a_thousand_refusals_of_one_array_share_a_few_letters_in_which_nothing_is_missing(app: Callboard) -> None:
    bad = [*[0] * 9000, {"task": "t", "id": 1}, "x" * 70_000, *["y" * 200] * 500]
    delivery = read(json.dumps(bad).encode(), message_id="m-1", h="x" * 7500)
    _, _, kept = await judged(app, delivery)
    assert len(kept) < 10
    assert sum(len(message.body) + header_bytes(message) for message in kept) < 400_000
    bodies = [json.loads(message.body) for message in kept if b"xxx" not in message.body]
    found = [element for body in bodies for element in (body if isinstance(body, list) else [body])]
    assert sorted(map(str, found)) == sorted(str(one) for one in bad if one != "x" * 70_000)
    names = [json.loads((message.headers or {})["callboard-properties"])["message_id"] for message in kept]
    assert len(set(names)) == len(kept)
    assert "m-1" not in names


async def test_a_hundred_refusals_of_one_array_have_a_letter_each(app: Callboard) -> None:
    _, _, kept = await judged(app, read(json.dumps([0] * 100).encode(), message_id="m-1"))
    assert [message.body for message in kept] == [b"0"] * 100
