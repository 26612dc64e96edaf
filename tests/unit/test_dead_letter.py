"""What is read of a dead letter, whoever wrote it, and which of them a filter means."""

from __future__ import annotations

from typing import Any

import pytest

from callboard.brokers.topology import Names
from callboard.runtime.dead_letter import DeadLetter, Filter, read_letter

NAMES = Names()
OURS = {
    "callboard-letter": "one", "callboard-reason": "not-json", "callboard-detail": "it is none", "callboard-path": "/a",
    "callboard-time": 5, "callboard-exchange": "callboard.submit", "callboard-routing-key": "emails",
    "callboard-size": 9, "callboard-properties": '{"message_id":"m"}',
}  # fmt: skip


class Read:
    """A delivery from `callboard.dead`."""

    redelivered = lost = False
    correlation_id = reply_to = content_type = content_encoding = None
    exchange, routing_key, message_id = "callboard.dead", "emails", "m-1"

    def __init__(self, headers: dict[str, Any]) -> None:
        self.headers = headers
        self.body = b"nope"
        self.size = len(self.body)

    def ack(self) -> None: ...

    def requeue(self) -> None: ...

    def reject(self) -> None: ...


def death(**members: Any) -> dict[str, Any]:
    return {"queue": NAMES.intake, "reason": "delivery_limit", "exchange": NAMES.submit, "count": 1} | members


def test_our_own_letter_says_what_was_put_aside_and_where_it_came_from() -> None:
    letter = read_letter(Read(OURS), NAMES)
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
        read_letter(Read(headers), NAMES)


def test_what_rabbitmq_says_goes_before_what_a_stranger_forged() -> None:
    forged = {**OURS, "callboard-reason": "forged", "callboard-exchange": NAMES.jobs}
    letter = read_letter(Read({**forged, "x-death": [death(), death(reason="forged")]}), NAMES)
    assert (letter.reason, letter.exchange, letter.id) == ("delivery_limit", NAMES.submit, "m-1")


def test_an_exchange_that_a_stranger_forged_in_rabbitmqs_own_header_is_not_believed() -> None:
    letter = read_letter(Read({"x-death": [death(exchange=NAMES.jobs)]}), NAMES)
    assert letter.exchange == NAMES.submit
    ticket = read_letter(Read({"x-death": [death(queue=NAMES.job_queue("emails"), exchange=NAMES.jobs)]}), NAMES)
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
    letter: DeadLetter = read_letter(Read(OURS), NAMES)
    assert wanted.fits(letter) is fits
