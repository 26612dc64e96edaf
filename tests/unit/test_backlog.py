from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from callboard.runtime.backlog import Backlog, Parcel
from callboard.runtime.errors import ConfigurationError
from callboard.runtime.wire import Bundle, Ticket


class FakeDelivery:
    body = b""
    size = 0
    exchange = routing_key = ""
    redelivered = False
    message_id = correlation_id = reply_to = content_type = content_encoding = None

    def __init__(self) -> None:
        self.headers: dict[str, Any] = {}
        self.lost = False
        self.acks = 0

    def ack(self) -> None:
        self.acks += 1

    def requeue(self) -> None: ...

    def reject(self) -> None: ...


def add(backlog: Backlog, queue: str, *ids: str, arrived: float = 0.0, priority: int = 5) -> FakeDelivery:
    delivery = FakeDelivery()
    tickets = [Ticket(id=name, queue=queue, task="t", created_at=0, dispatch=1, priority=priority) for name in ids]
    bundle = Bundle(v=1, epoch="e", at=0, jobs=tickets)
    backlog.add(queue, Parcel(delivery, bundle, parts=len(tickets), arrived=arrived), tickets)
    return delivery


def take(backlog: Backlog, limit: int) -> tuple[str, list[str]]:
    queue, pending = backlog.take(limit)
    return queue, [one.ticket.id for one in pending]


def turns(backlog: Backlog, number: int) -> list[str]:
    return [take(backlog, 1)[0] for _ in range(number)]


def backlog_of(weights: Sequence[int] | None = None) -> Backlog:
    return Backlog(["a", "b"], weights)


def test_a_queue_is_served_before_those_after_it() -> None:
    backlog = backlog_of()
    add(backlog, "b", "b1", "b2")
    add(backlog, "a", "a1", "a2")
    assert len(backlog) == 4
    taken = [take(backlog, 3) for _ in range(3)]
    assert taken == [("a", ["a1", "a2"]), ("b", ["b1", "b2"]), ("", [])]


def test_higher_priorities_are_taken_first_and_equal_ones_as_they_came() -> None:
    backlog = backlog_of()
    add(backlog, "a", "low1", "low2", priority=9)
    add(backlog, "a", "mid", priority=5)
    add(backlog, "a", "high", priority=1)
    assert take(backlog, 10) == ("a", ["high", "mid", "low1", "low2"])


def test_what_is_put_back_is_next_in_its_old_order() -> None:
    backlog = backlog_of()
    add(backlog, "a", "1", "2", "3", "4")
    queue, pending = backlog.take(2)
    backlog.put_back(queue, pending)
    assert take(backlog, 4) == ("a", ["1", "2", "3", "4"])


def test_tickets_whose_connection_is_gone_are_passed_over() -> None:
    backlog = backlog_of()
    add(backlog, "a", "gone").lost = True
    add(backlog, "b", "here")
    assert take(backlog, 5) == ("b", ["here"])
    assert len(backlog) == 0


def test_a_message_is_acked_once_when_the_last_of_its_tickets_is_settled() -> None:
    backlog = backlog_of()
    delivery = add(backlog, "a", "1", "2", "3")
    _, pending = backlog.take(3)
    acks = []
    for one in pending:
        one.parcel.settle()
        acks.append(delivery.acks)
    assert acks == [0, 0, 1]


def test_weights_give_each_queue_its_share_with_turns_in_between() -> None:
    backlog = backlog_of([3, 1])
    for queue in ("a", "b"):
        add(backlog, queue, *map(str, range(1000)))
    order = turns(backlog, 800)
    assert Counter(order) == {"a": 600, "b": 200}
    assert all(2 <= order[start : start + 12].count("b") <= 4 for start in range(0, 800, 12) if start + 12 <= 800)


def test_what_an_empty_queue_leaves_is_the_others() -> None:
    backlog = backlog_of([1, 9])
    add(backlog, "a", *map(str, range(300)))
    assert turns(backlog, 300) == ["a"] * 300


def test_a_queue_that_was_idle_has_saved_up_nothing() -> None:
    backlog = backlog_of([1, 1])
    add(backlog, "a", *map(str, range(2000)))
    turns(backlog, 1000)
    add(backlog, "b", *map(str, range(1000)))
    share = Counter(turns(backlog, 400))
    assert abs(share["a"] - share["b"]) <= 128


def test_a_queue_that_was_idle_is_next() -> None:
    backlog = backlog_of([9, 1])
    add(backlog, "a", *map(str, range(1000)))
    turns(backlog, 300)
    add(backlog, "b", "b1", "b2")
    order = turns(backlog, 20)
    assert order[0] == "b"
    assert order.count("b") == 2
    assert order.index("b", 1) > 5


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1]])
def test_weights_that_do_not_fit_the_queues_are_refused(weights: list[int]) -> None:
    with pytest.raises(ConfigurationError, match="each queue needs a weight of 1 or more"):
        backlog_of(weights)


def test_the_excess_of_old_bundles_is_handed_out_and_the_rest_stays() -> None:
    backlog = backlog_of()
    add(backlog, "a", "1", "2", "3", "4", arrived=1.0)
    add(backlog, "a", "young", "also", arrived=9.0)
    excess = backlog.excess("a", room=2, arrived_before=5.0)
    assert [one.ticket.id for one in excess] == ["3", "4"]
    assert take(backlog, 10) == ("a", ["1", "2", "young", "also"])


def test_a_ticket_that_came_alone_is_no_excess() -> None:
    backlog = backlog_of()
    add(backlog, "a", "1", arrived=1.0)
    add(backlog, "a", "2", arrived=1.0)
    assert backlog.excess("a", room=0, arrived_before=5.0) == []
    assert backlog.waiting("a") == 2


def test_clearing_a_queue_forgets_its_tickets_without_an_ack() -> None:
    backlog = backlog_of()
    delivery = add(backlog, "a", "1", "2")
    add(backlog, "b", "3")
    backlog.clear("a")
    assert (backlog.waiting("a"), backlog.waiting("b"), delivery.acks) == (0, 1, 0)
