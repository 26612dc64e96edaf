"""Actors that start while the broker refuses what they consume: they wait, unready, and say once what is to be done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from aiormq import ChannelAccessRefused

from callboard import Callboard
from callboard.brokers.contract import BODY_LIMIT, Consumer, Receive
from callboard.brokers.errors import BrokerError, BrokerRefused
from callboard.brokers.memory import MemoryBroker
from callboard.brokers.rabbitmq.link import translated
from callboard.brokers.topology import Topology
from callboard.runtime.clock import Clock
from callboard.runtime.connections import Connections
from callboard.runtime.deployment import Deployment
from callboard.runtime.opened import Opened
from callboard.runtime.settings import Settings
from callboard.runtime.supervisor import Child
from callboard.runtime.testing import running, settled

WITHIN_SECONDS = 60.0
TRIES = 3


class RefusingBroker(MemoryBroker):
    """Refuses those queues, to declare them or to consume them, as long as it holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.declares = True
        self.asked = 0

    async def declare(self, topology: Topology) -> None:
        if not self.declares:
            self._check({queue.name for queue in topology.queues})
        await super().declare(topology)

    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        self._check({queue})
        return await super().consume(queue, receive, prefetch=prefetch, exclusive=exclusive, body_limit=body_limit)

    def _check(self, queues: set[str]) -> None:
        if refused := queues & self.refused:
            self.asked += 1
            raise BrokerRefused(f"ACCESS_REFUSED - access to queue {refused.pop()!r}")


class RefusedApp(Opened):
    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__()
        self._broker = broker

    def connect(self, settings: Settings, clock: Clock) -> Connections:
        return Connections(settings, clock, broker=self._broker)


class Refused(NamedTuple):
    app: Callboard
    broker: RefusingBroker
    deployment: Deployment
    ran: list[str]

    async def tried(self) -> None:
        while self.broker.asked < TRIES:
            await asyncio.sleep(0.05)
        (child,) = self._children
        assert child.restarts == 0  # a supervisor bears few
        assert not child.working

    async def works(self) -> None:
        while not all(child.working for child in self._children):
            await asyncio.sleep(0.05)

    @property
    def _children(self) -> list[Child]:
        assert self.deployment._supervisor is not None
        return self.deployment._supervisor.children


@asynccontextmanager
async def refused(actor: str, *queues: str, declares: bool = True) -> AsyncIterator[Refused]:
    app, broker, ran = Callboard(broker="memory://", store="memory://"), RefusingBroker(), list[str]()
    opened = RefusedApp(broker)
    app.opened = lambda: opened

    @app.task(name="a", queue="allowed")
    async def a() -> None:
        ran.append("a")

    @app.task(name="b", queue="refused")
    async def b() -> None:
        ran.append("b")

    broker.refused, broker.declares = set(queues), declares
    async with (
        asyncio.timeout(WITHIN_SECONDS),
        app,
        running(app, actors=[actor], queues=("refused", "allowed")) as deployment,
    ):
        yield Refused(app, broker, deployment, ran)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("declares", [True, False])
async def test_a_worker_waits_for_the_queue_it_is_refused_and_serves_the_others_meanwhile(
    caplog: pytest.LogCaptureFixture, declares: bool
) -> None:
    async with refused("worker", "callboard.jobs.refused", declares=declares) as one:
        await one.app.tasks["a"].enqueue()
        await settled(one.app, "allowed")
        await one.tried()
        assert one.ran == ["a"]
        (line,) = [line for line in lines(caplog) if "is not consumed" in line]
        assert "queue refused is not consumed until the broker permits it: ACCESS_REFUSED" in line
        one.broker.refused.clear()
        await one.works()
        await one.app.tasks["b"].enqueue()
        await settled(one.app, "refused")
        assert one.ran == ["a", "b"]


async def test_a_worker_that_is_stopped_while_it_is_refused_ends_in_order() -> None:
    async with refused("worker", "callboard.jobs.refused", "callboard.jobs.allowed") as one:
        await one.tried()


async def test_an_intake_waits_for_its_queue(caplog: pytest.LogCaptureFixture) -> None:
    async with refused("intake", "callboard.intake") as one:
        await one.tried()
        (line,) = [line for line in lines(caplog) if "broker" in line]
        assert "nothing is taken in until the broker permits it: ACCESS_REFUSED" in line
        one.broker.refused.clear()
        await one.works()


def test_what_rabbitmq_refuses_a_user_is_told_with_what_to_do_and_an_exclusive_queue_is_something_else() -> None:
    user = "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'"
    with (
        pytest.raises(BrokerRefused, match=r"refused for user 'u'; rabbitmqctl set_permissions"),
        translated("amqp://"),
    ):
        raise ChannelAccessRefused(user)
    with pytest.raises(BrokerError) as raised, translated("amqp://"):
        raise ChannelAccessRefused("ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")
    assert not isinstance(raised.value, BrokerRefused)
