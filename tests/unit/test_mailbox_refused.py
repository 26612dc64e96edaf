"""An actor whose mailbox the broker refuses works without it, and gets it once the broker lets it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from callboard.brokers.errors import BrokerError
from callboard.brokers.memory import MemoryBroker
from callboard.brokers.message import Message
from callboard.brokers.topology import Names, Topology
from callboard.runtime.actor import Mailbox
from callboard.runtime.wire import Command, encode_command

NAMES = Names("mailbox")
REFUSALS = 3


class RefusingBroker(MemoryBroker):
    """Refuses to declare the mailbox for the first times."""

    refused = 0

    async def declare(self, topology: Topology) -> None:
        if NAMES.mailbox("one") in {queue.name for queue in topology.queues} and self.refused < REFUSALS:
            self.refused += 1
            raise BrokerError("ACCESS_REFUSED")
        await super().declare(topology)


class FakeActor:
    """Its own stage, too."""

    kind = "worker"
    names = NAMES
    mailbox = "one"
    log = logging.getLogger("mailbox")

    def __init__(self) -> None:
        self.broker = RefusingBroker()
        self.stage = self
        self.connections = self
        self.stopping = asyncio.Event()
        self.heard_again = asyncio.Event()
        self.received: asyncio.Queue[Command] = asyncio.Queue()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def backoff(self, failures: int) -> float:
        return 0.0

    def hears_again(self) -> None:
        self.heard_again.set()

    def receive(self, command: Command) -> None:
        self.received.put_nowait(command)


async def test_a_mailbox_that_is_refused_is_no_failure_of_its_actor_and_is_there_once_it_is_allowed() -> None:
    actor: Any = FakeActor()
    await actor.broker.open()
    await actor.broker.declare(NAMES.exchanges())
    mailbox = Mailbox(actor, keys=())
    await mailbox.open()
    assert actor.broker.refused == 1
    async with asyncio.timeout(60):
        await actor.heard_again.wait()
        command = encode_command(Command(command="resume", queue="mail"))
        await actor.broker.publish([Message(exchange=NAMES.control, routing_key="worker", body=command)], timeout=1)
        assert (await actor.received.get()).queue == "mail"
    assert actor.broker.refused == REFUSALS
    await mailbox.close()
    await actor.broker.close()
