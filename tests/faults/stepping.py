"""Actors that are killed at a named step: before or after a call of their store, of their broker, or an ack.

    run(Deployed(...), ["intake"], Moment("Jobs.enqueue", "after"))      kills its own process (-9) at the first one
    run(Deployed(...), ["intake"], None, trace)              goes on until it is terminated; writes each step down

A worker among them runs the tasks of faults/workload.py, in QUEUE. What an actor stands on is wrapped, call by call;
the actor is the real one, and so are the servers. A step "after" its call is one whose answer has come and has not been
looked at.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Callable, Sequence
from copy import copy
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from callboard import Callboard
from callboard.brokers.contract import Broker, Consumer, Receive
from callboard.brokers.message import Delivery, Message, Receipt
from callboard.metadata.contract import Store
from callboard.runtime.connections import Connections
from callboard.runtime.dispatcher import Dispatcher
from callboard.runtime.producer import Producer
from callboard.runtime.testing import running
from faults.fleet import Deployed
from faults.workload import BACKOFF_SECONDS, QUEUES, RETRIES, work, work_in_thread

QUEUE = QUEUES[0]
ACK = "ack"
ACK_IS_SENT_SECONDS = 0.1  # what is acked in a tick of the loop is written at its end
PATIENCE_SECONDS = 90.0


class Moment(Struct, frozen=True):
    """`nth`: the how manieth step of that name; 0: each."""

    step: str
    when: str  # "before" | "after"
    nth: int = 1


def end_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    """`act` is done at the moment. `held`: a step that begins and never reaches its server."""

    def __init__(
        self,
        moment: Moment | None,
        trace: Path | None = None,
        act: Callable[[], None] = end_process,
        *,
        held: str | None = None,
    ) -> None:
        self.held = held
        self._moment = moment
        self._trace = trace
        self._act = act
        self._counts: dict[str, int] = {}

    def begin(self, step: str) -> int:
        count = self._counts[step] = self._counts.get(step, 0) + 1
        if self._trace is not None:
            with self._trace.open("a") as file:
                file.write(f"{step}\n")
        self._reached(step, "before", count)
        return count

    def end(self, step: str, count: int) -> None:
        self._reached(step, "after", count)

    def _reached(self, step: str, when: str, count: int) -> None:
        if self._moment in (Moment(step, when, count), Moment(step, when, 0)):
            self._act()


class Stepping:
    """Each coroutine function of an object is a step, named by the object and the function."""

    def __init__(self, inner: object, steps: Steps, name: str) -> None:
        self._inner = inner
        self._steps = steps
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        if not inspect.iscoroutinefunction(value):
            return value
        return self._step(f"{self._name}.{attribute}", value)

    def _step(self, step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def do(*args: Any, **named: Any) -> Any:
            count = self._steps.begin(step)
            if step == self._steps.held:
                await asyncio.Event().wait()
            answer = await call(*args, **named)
            self._steps.end(step, count)
            return answer

        return do


class SteppingStore(Stepping):
    def get(self, capability: type) -> Any:
        return Stepping(cast(Store, self._inner).get(capability), self._steps, capability.__name__)


class SteppingBroker(Stepping):
    """A publish is named by its exchange, without the namespace; the default exchange by "reply"."""

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        broker = cast(Broker, self._inner)
        exchange = messages[0].exchange.rpartition(".")[2] if messages and messages[0].exchange else "reply"
        receipts: Sequence[Receipt] = await self._step(f"publish {exchange}", broker.publish)(messages, timeout=timeout)
        return receipts

    async def consume(self, queue: str, receive: Receive, **given: Any) -> Consumer:
        broker = cast(Broker, self._inner)

        def wrapped(delivery: Delivery) -> None:
            receive(cast(Delivery, SteppingDelivery(delivery, self._steps, ACK)))

        consumer: Consumer = await self._step("broker.consume", broker.consume)(queue, wrapped, **given)
        return consumer


class SteppingDelivery(Stepping):
    def ack(self) -> None:
        count = self._steps.begin(ACK)
        cast(Delivery, self._inner).ack()
        asyncio.get_running_loop().call_later(ACK_IS_SENT_SECONDS, self._steps.end, ACK, count)


class SteppingApp(Callboard):
    """An app whose connections are stepped through by the actors that run on it."""

    steps: Steps
    stepping: Connections | None = None

    @property
    def connections(self) -> Connections:
        if self.stepping is None:
            self.stepping = self._wrapped(super().connections)
        return self.stepping

    def _wrapped(self, there: Connections) -> Connections:
        here = copy(there)
        here.broker = cast(Broker, SteppingBroker(there.broker, self.steps, "broker"))
        here.store = cast(Store, SteppingStore(there.store, self.steps, "store"))
        here.dispatcher = Dispatcher(
            broker=here.broker,
            store=here.store,
            names=there.names,
            clock=there.clock,
            confirm_timeout=there.settings.confirm_timeout,
        )
        here.producer = Producer(
            store=here.store, dispatcher=here.dispatcher, settings=there.settings, clock=there.clock
        )
        return here


async def _run(deployed: Deployed, actors: Sequence[str], steps: Steps) -> None:
    app = SteppingApp(broker=deployed.broker, store=deployed.store, namespace=deployed.namespace)
    app.steps = steps
    if "worker" in actors:
        for task in (work, work_in_thread):
            app.task(name=task.name, queue=QUEUE, retries=RETRIES, backoff=BACKOFF_SECONDS)(task.function)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with app:
        async with running(app, actors=actors):
            await stop.wait()
        await app.connections.producer.drain()
        await app.connections.dispatcher.flush()


def run(
    deployed: Deployed, actors: Sequence[str], moment: Moment | None, trace: Path | None = None, ledger: str = ""
) -> None:
    """The whole life of one process. `ledger`: where its handlers write."""
    os.environ |= {**deployed.settings, "FAULTS_LEDGER": ledger}
    asyncio.run(_run(deployed, actors, Steps(moment, trace)))


async def ended(process: ForkServerProcess) -> int | None:
    """Wait for it; its exit code, None where it has not ended within PATIENCE_SECONDS and was killed."""
    await asyncio.to_thread(process.join, PATIENCE_SECONDS)
    code = process.exitcode
    process.kill()
    process.join()
    process.close()
    return code
