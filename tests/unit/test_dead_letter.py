"""What is read of a dead letter, whoever wrote it, and which of them a filter means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard import Callboard
from callboard.brokers.message import Delivery, Message
from callboard.brokers.topology import Names
from callboard.runtime.clock import SystemClock
from callboard.runtime.dead_letter import DeadLetter, Filter, read_letter
from callboard.runtime.dead_letters import MAX_PROPERTIES
from callboard.runtime.dead_queue import WORN, DeadQueue
from callboard.runtime.draft import Draft
from callboard.runtime.wire import encode

NAMES = Names()
OURS = {
    "callboard-letter": "one", "callboard-reason": "not-json", "callboard-detail": "it is none", "callboard-path": "/a",
    "callboard-time": 5, "callboard-exchange": "callboard.submit", "callboard-routing-key": "emails",
    "callboard-size": 9, "callboard-properties": '{"message_id":"m"}',
}  # fmt: skip


def put_aside(headers: dict[str, Any], *, message_id: str | None = "m-1") -> Draft:
    """A delivery from `callboard.dead`."""
    return Draft(body=b"nope", exchange="callboard.dead", routing_key="emails", message_id=message_id, headers=headers)


def death(**members: Any) -> dict[str, Any]:
    return {"queue": NAMES.intake, "reason": "delivery_limit", "exchange": NAMES.submit, "count": 1} | members


def test_our_own_letter_says_what_was_put_aside_and_where_it_came_from() -> None:
    letter = read_letter(put_aside(OURS), NAMES)
    assert (letter.id, letter.reason, letter.detail, letter.path, letter.at) == (
        "one",
        "not-json",
        "it is none",
        "/a",
        5,
    )
    assert (letter.exchange, letter.routing_key, letter.size) == (NAMES.submit, "emails", 9)
    assert letter.properties == {"message_id": "m"}
    assert not letter.complete


@pytest.mark.parametrize("name", sorted(OURS))
@pytest.mark.parametrize("value", [None, [], {"a": 1}, -1, 2**62, True, 1.5, b"\xff", "", "\ud800", "x" * 100_000])
def test_no_header_of_a_letter_raises(name: str, value: object) -> None:
    for headers in ({**OURS, name: value}, {name: value}, {**OURS, "x-death": value}, {"x-death": [value]}):
        read_letter(put_aside(headers), NAMES)


def test_what_rabbitmq_says_goes_before_what_a_stranger_forged() -> None:
    forged = {**OURS, "callboard-reason": "forged", "callboard-exchange": NAMES.jobs}
    letter = read_letter(put_aside({**forged, "x-death": [death(), death(reason="forged")]}), NAMES)
    assert (letter.reason, letter.exchange, letter.id) == ("delivery_limit", NAMES.submit, "m-1")


def test_an_exchange_that_a_stranger_forged_in_rabbitmqs_own_header_is_not_believed() -> None:
    letter = read_letter(put_aside({"x-death": [death(exchange=NAMES.jobs)]}), NAMES)
    assert letter.exchange == NAMES.submit
    ticket = read_letter(put_aside({"x-death": [death(queue=NAMES.job_queue("emails"), exchange=NAMES.jobs)]}), NAMES)
    assert ticket.exchange == NAMES.jobs


@pytest.mark.parametrize(
    ("fits", "wanted"),
    [
        (True, Filter()),
        (True, Filter(ids=("on",), reasons=("not-json", "x"), routing_key="emails", exchange="callboard.submit")),
        (False, Filter(ids=("two",))),
        (False, Filter(reasons=("x",))),
        (False, Filter(routing_key="images")),
        (False, Filter(exchange="")),
        (True, Filter(older_than=6, newer_than=4)),
        (False, Filter(older_than=5)),
        (False, Filter(newer_than=5)),
        (True, Filter(containing="op")),
        (False, Filter(containing="OP")),
    ],
)
def test_a_filter_means_a_letter_where_all_that_is_given_holds(fits: bool, wanted: Filter) -> None:
    letter: DeadLetter = read_letter(put_aside(OURS), NAMES)
    assert wanted.fits(letter) is fits


async def test_letters_that_are_published_anew_are_small_and_each_has_an_id_of_its_own() -> None:
    app = Callboard(store="memory://", broker="memory://")
    headers = {"x-death": [death()], "callboard-detail": "d" * 9000, "h": "\x01" * 9000, "x-delivery-count": WORN}
    message = Message(exchange=NAMES.dead, routing_key="emails", body=b"nope", headers=headers)
    async with app:
        broker = app.connections.broker
        await broker.declare(NAMES.exchanges())
        await broker.publish([message, message], timeout=10)
        dead = DeadQueue(broker, NAMES, SystemClock(), lifetime=None)
        for _ in range(2):  # the first publishes them anew
            found: list[DeadLetter] = []

            def see(letter: DeadLetter, _: Delivery, found: list[DeadLetter] = found) -> bool:
                found.append(letter)
                return True

            await dead.look(see)
    assert [(len(letter.detail), letter.reason, letter.looks) for letter in found] == [(1000, "delivery_limit", 0)] * 2
    assert len({letter.id for letter in found}) == 2
    assert all(len(encode(letter.properties)) < MAX_PROPERTIES for letter in found)


def test_what_rabbitmq_put_aside_has_the_id_that_its_producer_gave_it() -> None:
    named = read_letter(put_aside({"x-death": [death()], "callboard-message-id": "order-7", "h": 1}), NAMES)
    assert (named.id, named.named, named.properties["headers"]["h"]) == ("order-7", True, 1)
    assert named.properties["message_id"] == "order-7"
    large = read_letter(put_aside({"x-death": [death()], "h": "\x01" * 9000}), NAMES)
    assert "headers" not in large.properties


def test_a_letter_without_an_id_has_the_same_one_at_each_look_and_another_than_others() -> None:
    one, same, other = (
        read_letter(put_aside({"x-death": [death(count=count)]}, message_id=None), NAMES) for count in (1, 1, 2)
    )
    assert not one.named
    assert one.id == same.id != other.id


async def test_a_visitor_that_fails_ends_the_look_and_every_letter_stays() -> None:
    app = Callboard(store="memory://", broker="memory://")
    async with app:
        broker = app.connections.broker
        await broker.declare(NAMES.exchanges())
        message = Message(exchange=NAMES.dead, routing_key="emails", body=b"nope", headers=OURS)
        await broker.publish([message, message], timeout=10)
        dead = DeadQueue(broker, NAMES, SystemClock(), lifetime=None)
        seen: list[DeadLetter] = []

        def see(letter: DeadLetter, _: Delivery) -> bool:
            seen.append(letter)
            raise BrokenPipeError("nobody reads")

        async with asyncio.timeout(60):
            with pytest.raises(BrokenPipeError, match="nobody reads"):
                await dead.look(see)
        depth = await broker.depth(NAMES.dead)
    assert len(seen) == 1
    assert depth is not None
    assert depth.ready == 2


class Napping(SystemClock):
    """Sleeps at once, and knows for how long it would have slept."""

    def __init__(self) -> None:
        self.slept = 0.0

    def elapsed(self) -> float:
        return self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        await asyncio.sleep(0)


async def test_a_rate_of_less_than_a_letter_a_minute_holds_from_pass_to_pass() -> None:
    app = Callboard(store="memory://", broker="memory://")
    headers = OURS | {"callboard-size": 4}
    async with app:
        broker = app.connections.broker
        await broker.declare(NAMES.exchanges())
        message = Message(exchange=NAMES.dead, routing_key="emails", body=b"nope", headers=headers)
        await broker.publish([message] * 3, timeout=10)
        clock = Napping()
        done = await DeadQueue(broker, NAMES, clock, lifetime=None).requeue(Filter(), limit=10, rate=0.01)
    assert done.sent == 3
    assert 200 <= clock.slept < 210
