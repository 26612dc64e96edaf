from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import aiormq
import pytest

from callboard.brokers.contract import Broker
from callboard.brokers.memory import MemoryBroker
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.runtime.testing.brokers import BrokerConformance
from integration.cutting_proxy import CuttingProxy


class TestMemoryBroker(BrokerConformance):
    async def make_broker(self) -> Broker:
        return MemoryBroker.from_url("memory://", name="conformance")

    async def cut(self, broker: Broker) -> None:
        assert isinstance(broker, MemoryBroker)
        broker.disconnect()

    async def mend(self, broker: Broker) -> None:
        assert isinstance(broker, MemoryBroker)
        broker.reconnect()


class TestRabbitMQBroker(BrokerConformance):
    frames = "fast"

    @pytest.fixture(autouse=True)
    async def proxy(self, amqp_url: str) -> AsyncIterator[None]:
        self.direct_url = amqp_url
        async with CuttingProxy(amqp_url) as self.between:
            yield

    async def make_broker(self) -> Broker:
        return RabbitMQBroker.from_url(f"{self.between.url}?frames={self.frames}", name="conformance")

    async def cut(self, broker: Broker) -> None:
        self.between.cut()

    async def mend(self, broker: Broker) -> None:
        self.between.mend()

    async def remove_exchanges(self, names: Sequence[str]) -> None:
        connection = await aiormq.connect(self.direct_url)
        channel = await connection.channel()
        for name in names:
            await channel.exchange_delete(name)
        await connection.close()


class TestRabbitMQBrokerOnPlainFrames(TestRabbitMQBroker):
    frames = "plain"
