"""An app whose workers get some tickets twice and all of them out of order, and write down what they claim.

    DOUBLED=10 DOUBLED_SEED=1 NOTES=<folder> callboard run worker --app faults.doubling:app

The worker is the real one, and so are its servers. Between it and its broker stands a consumer that holds up to
SHUFFLED deliveries back, hands them over in another order, and publishes the body of every tenth again, as it came, to
the queue that it came from. DOUBLED=0: nothing of that. In the folder there is one line, one `write`, for each:

    claims    [job, dispatch, boot, verdict]     answer of the store to a ticket
    copies    [tickets, receipt]                 message published again, once the broker has answered
    bodies    the body of each message that came
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from callboard import Callboard
from callboard.brokers.contract import Broker, Consumer, Receive
from callboard.brokers.message import Delivery, Message, Receipt
from callboard.metadata.contract import Claimed, Jobs, Store, Ticket, Verdict
from callboard.runtime.connections import Connections
from callboard.runtime.wire import decode_bundle
from faults.workload import BACKOFF_SECONDS, RETRIES, work, work_in_thread

APP = "faults.doubling:app"
DOUBLED, SEED, NOTES = "DOUBLED", "DOUBLED_SEED", "NOTES"  # environment variables
SHUFFLED = 100
HOLD_SECONDS = 0.3  # a delivery waits no longer for others to be mixed with
CONFIRM_SECONDS = 30.0
PRIORITY = 5  # AMQP's, of all tickets of this load


class Claim(Struct, frozen=True, array_like=True):
    job: str
    dispatch: int
    boot: str
    verdict: Verdict


class Notes:
    """Many processes may write, one reads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, int] = {}

    def write(self, name: str, line: bytes) -> None:
        if name not in self._files:
            self._files[name] = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        os.write(self._files[name], line + b"\n")

    def claims(self) -> list[Claim]:
        return [
            Claim(job, dispatch, boot, Verdict(verdict))
            for job, dispatch, boot, verdict in map(json.loads, self._lines("claims"))
        ]

    def copies(self) -> list[tuple[int, str]]:
        return [(tickets, receipt) for tickets, receipt in map(json.loads, self._lines("copies"))]

    def bodies(self) -> list[bytes]:
        return self._lines("bodies")

    def _lines(self, name: str) -> list[bytes]:
        """Whole ones: the last may be being written."""
        path = self._folder / name
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


class NotedJobs:
    def __init__(self, inner: Jobs, notes: Notes) -> None:
        self._inner = inner
        self._notes = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def claim(self, queue: str, owner: str, tickets: Sequence[Ticket], **given: Any) -> Sequence[Claimed]:
        answers = await self._inner.claim(queue, owner, tickets, **given)
        for ticket, answer in zip(tickets, answers, strict=True):
            line = [ticket.id, ticket.dispatch, owner, answer.verdict]
            self._notes.write("claims", json.dumps(line).encode())
        return answers


class NotedStore:
    def __init__(self, inner: Store, notes: Notes) -> None:
        self._inner = inner
        self._notes = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, capability: Any) -> Any:
        found = self._inner.get(capability)
        return NotedJobs(found, self._notes) if capability is Jobs else found


class DoublingBroker:
    """`every`: the how manieth message of a job queue comes twice."""

    def __init__(self, inner: Broker, notes: Notes, *, job_queues: str, every: int, random: Random) -> None:
        self._inner = inner
        self._notes = notes
        self._job_queues = job_queues
        self._every = every
        self._random = random
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def consume(self, queue: str, receive: Receive, **given: Any) -> Consumer:
        if queue.startswith(self._job_queues):
            receive = _Mixer(self, queue, receive).take
        return await self._inner.consume(queue, receive, **given)

    def came(self, queue: str, body: bytes) -> None:
        self._notes.write("bodies", body)
        self._count += 1
        if self._every and self._count % self._every == 0:
            task = asyncio.get_running_loop().create_task(self._publish_again(queue, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def shuffled(self, held: list[Delivery]) -> list[Delivery]:
        if self._every:
            self._random.shuffle(held)
        return held

    async def _publish_again(self, queue: str, body: bytes) -> None:
        bundle, _ = decode_bundle(body)
        message = Message(exchange="", routing_key=queue, body=body, priority=PRIORITY)
        (receipt,) = await self._inner.publish([message], timeout=CONFIRM_SECONDS)
        self._notes.write("copies", json.dumps([len(bundle.jobs), receipt]).encode())


class _Mixer:
    """What one consumer has brought and not handed over yet."""

    def __init__(self, broker: DoublingBroker, queue: str, receive: Receive) -> None:
        self._broker = broker
        self._queue = queue
        self._receive = receive
        self._held: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    def take(self, delivery: Delivery) -> None:
        self._broker.came(self._queue, delivery.body)
        self._held.append(delivery)
        if len(self._held) >= SHUFFLED:
            self._hand_over()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for delivery in self._broker.shuffled(held):
            if not delivery.lost:  # else it is on its way to somebody again
                self._receive(delivery)


class DoublingApp(Callboard):
    """An app whose actors consume and claim through what stands in between."""

    _between: Connections | None = None

    @property
    def connections(self) -> Connections:
        there = super().connections
        if self._between is None:
            notes, here = Notes(Path(os.environ[NOTES])), copy(there)
            broker: Any = DoublingBroker(
                there.broker,
                notes,
                job_queues=there.names.job_queue(""),
                every=int(os.environ[DOUBLED]),
                random=Random(os.environ[SEED]),
            )
            store: Any = NotedStore(there.store, notes)
            here.broker, here.store = broker, store
            self._between = here
        return self._between


def confirmed(copies: Sequence[tuple[int, str]]) -> int:
    """How many tickets are in the copies, of each of which the broker has to have said that it has it."""
    assert {receipt for _, receipt in copies} <= {Receipt.CONFIRMED.value}, copies
    return sum(tickets for tickets, _ in copies)


app = DoublingApp()
for _task in (work, work_in_thread):
    app.task(name=_task.name, retries=RETRIES, backoff=BACKOFF_SECONDS)(_task.function)
