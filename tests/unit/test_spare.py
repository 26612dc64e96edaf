"""What a busy worker hands on to an idle one keeps its age: a copy of a job long forgotten must not look new."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from callboard.brokers.contract import Depth
from callboard.metadata.contract import Ready
from callboard.runtime.backlog import Backlog, Parcel
from callboard.runtime.spare import Spare
from callboard.runtime.wire import Bundle, Ticket


class FakeDelivery:
    lost = False

    def __init__(self) -> None:
        self.acks = 0

    def ack(self) -> None:
        self.acks += 1


class FakeStage:
    """Others are idle, as far as its broker knows."""

    def __init__(self, *, takes: bool) -> None:
        self.sent: list[tuple[str, int | None, str | None]] = []
        self.names = SimpleNamespace(job_queue=str)
        self.clock = SimpleNamespace(elapsed=lambda: 10.0)
        self.broker = self.dispatcher = self
        self._takes = takes

    async def depth(self, queue: str) -> Depth:
        return Depth(ready=0, consumers=2)

    async def send_single(self, ready: Ready, *, at: int | None = None, epoch: str | None = None) -> bool:
        self.sent.append((ready.id, at, epoch))
        return self._takes


@pytest.mark.parametrize("takes", [True, False])
async def test_a_ticket_that_is_handed_on_is_as_old_as_it_was_and_of_the_same_life_of_the_store(takes: bool) -> None:
    stage: Any = FakeStage(takes=takes)
    backlog = Backlog(["q"], None)
    delivery: Any = FakeDelivery()
    tickets = [Ticket(id=name, queue="q", task="t", created_at=0, dispatch=1, priority=5) for name in ("a", "b")]
    bundle = Bundle(v=1, epoch="before", at=17, jobs=tickets)
    backlog.add("q", Parcel(delivery, bundle, parts=2, arrived=1.0), tickets)
    await Spare(stage, backlog).hand_on("q", room=1)
    assert stage.sent == [("b", 17, "before")]
    assert backlog.waiting("q") == (1 if takes else 2)
