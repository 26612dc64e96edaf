"""What is sent of what was settled, against a server that closes the channel for an unknown delivery tag."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callboard.brokers.rabbitmq.settling import Settled, Settling


class Server:
    """The unacknowledged deliveries of one channel."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.requeued: set[int] = set()
        self.dropped: set[int] = set()
        self.words = 0

    def hear(self, settled: Settled) -> None:
        for tag, requeue in settled.returned:
            self.open.remove(tag)  # KeyError: an unknown tag, for which RabbitMQ closes the channel
            (self.requeued if requeue else self.dropped).add(tag)
        for tag, multiple in settled.acks:
            assert tag in self.open
            self.open -= {one for one in self.open if one <= tag} if multiple else {tag}
        self.words += len(settled.returned) + len(settled.acks)


steps = st.lists(st.tuples(st.sampled_from(["deliver", "ack", "requeue", "reject", "send"]), st.integers(0, 30)))


@given(steps)
def test_the_server_forgets_what_was_settled_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    server, due = Server(), []
    settling = Settling(lambda: due.append(True))
    delivered, unsettled, requeued, rejected = 0, set[int](), set[int](), set[int]()
    for step, tag in [*steps, ("send", 0)]:
        match step:
            case "deliver":
                delivered += 1
                settling.delivered(delivered)
                server.open.add(delivered)
                unsettled.add(delivered)
            case "ack":
                settling.ack(tag)
                unsettled.discard(tag)
            case "requeue" | "reject":
                if tag in unsettled:
                    (requeued if step == "requeue" else rejected).add(tag)
                settling.give_back(tag, requeue=step == "requeue")
                unsettled.discard(tag)
            case _:
                settled = settling.take()
                assert (settled is not None) == bool(due)
                due.clear()
                if settled is not None:
                    server.hear(settled)
    assert server.open == unsettled
    assert (server.requeued, server.dropped) == (requeued, rejected)
    assert settling.done == (not unsettled)


def test_a_thousand_acks_in_any_order_of_all_that_was_delivered_are_one_word() -> None:
    server, settling = Server(), Settling(lambda: None)
    for tag in range(1, 1001):
        settling.delivered(tag)
        server.open.add(tag)
    for tag in [*range(1, 1001, 2), *range(1000, 0, -2)]:
        settling.ack(tag)
    settled = settling.take()
    assert settled == Settled([], [(1000, True)])
    server.hear(settled)
    assert server.open == set()
