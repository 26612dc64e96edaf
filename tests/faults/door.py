"""What the tests of bad input stand on: actors in processes, a way to submit, and a look at what was put aside.

    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url) as door:
        door.start()
        await door.submit(bodies)
        jobs, letters = await door.settled(final=100, letters=3)

Handlers are those of faults/workload.py; the ledger tells what ran.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aio_pika

from callboard.brokers.message import Delivery
from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.metadata.job import Job, State
from callboard.runtime.clock import SystemClock
from callboard.runtime.dead_letter import DeadLetter
from callboard.runtime.dead_queue import DeadQueue
from faults.fleet import CONNECTED, SERVES, actor
from faults.scene import SETTINGS, Scene
from faults.workload import APP, QUEUES

TAKES_IN = "takes in"
QUEUE = QUEUES[0]
WINDOW = 500


def good(job_id: str, **members: Any) -> bytes:
    """A submission of a job that does nothing."""
    return json.dumps({"task": "work", "args": [0, False], "id": job_id, **members}).encode()


class Door:
    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        store: str,
        broker: str,
        shares_broker: bool = True,
        app: str = APP,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.scene = Scene(
            folder,
            seed=seed,
            store=store,
            broker=broker,
            shares_store=True,
            shares_broker=shares_broker,
            settings={**SETTINGS, **(settings or {})},
        )
        self.names = self.scene.names
        self.fleet = self.scene.fleet
        self._app = app
        self._amqp_url = broker
        self._broker = RabbitMQBroker.from_url(broker, name="the test at the door")
        self._channel: aio_pika.abc.AbstractChannel | None = None
        self._closing = AsyncExitStack()
        self.dead = DeadQueue(self._broker, self.names, SystemClock(), lifetime=None)

    def start(self, *kinds: str, intakes: int = 1) -> None:
        """One process for each of these actors, and so many intakes."""
        for kind in kinds or ("worker", "delayed-scanner", "stalled-recovery"):
            self.fleet.start(f"{kind}-1", actor(kind, app=self._app, queues=QUEUES if kind == "worker" else ()))
        for number in range(1, intakes + 1):
            self.fleet.start(f"intake-{number}", ["-m", "callboard", "run", "intake"])

    async def up(self) -> None:
        await self.scene.until(lambda: all(m.said(CONNECTED) for m in self.fleet), "all are connected", 30)
        await self.scene.until(
            lambda: (
                all(m.said(SERVES) for m in self.fleet.named("worker"))
                and all(m.said(TAKES_IN) for m in self.fleet.named("intake"))
            ),
            "workers and intakes consume",
            30,
        )

    async def submit(
        self,
        bodies: Iterable[bytes],
        *,
        routing_key: str = QUEUE,
        exchange: str | None = None,
        own: Iterable[Mapping[str, Any]] | None = None,
        **properties: Any,
    ) -> None:
        """Persistent and confirmed; mandatory, but for events, to which nobody need listen. `own`: properties for each
        of the bodies."""
        if self._channel is None:
            connection = await self._closing.enter_async_context(await aio_pika.connect(self._amqp_url))
            self._channel = await connection.channel(on_return_raises=True)
        to = await self._channel.get_exchange(exchange or self.names.submit, ensure=False)
        mandatory = exchange != self.names.events

        async def publish(body: bytes, its: Mapping[str, Any]) -> None:
            message = aio_pika.Message(body, delivery_mode=2, **properties, **its)
            await to.publish(message, routing_key, mandatory=mandatory)

        pending = list(zip(bodies, repeat({}) if own is None else own, strict=False))
        for start in range(0, len(pending), WINDOW):
            await asyncio.gather(*(publish(body, its) for body, its in pending[start : start + WINDOW]))

    async def letters(self) -> list[DeadLetter]:
        found: list[DeadLetter] = []

        def see(letter: DeadLetter, _: Delivery) -> bool:
            found.append(letter)
            return True

        await self.dead.look(see)
        return found

    async def waiting(self) -> int:
        """Submissions that nobody holds."""
        depth = await self._broker.depth(self.names.intake)
        assert depth is not None
        return depth.ready

    async def recorded(self) -> int:
        """How many jobs the store knows."""
        counts = await self.scene.counts()
        return sum(
            c.waiting + c.delayed + c.active + c.completed + c.failed + c.cancelled + c.expired for c in counts.values()
        )

    async def settled(
        self, *, final: int = 0, letters: int = 0, ids: Sequence[str] = (), seconds: float = 60.0
    ) -> tuple[dict[str, Job], list[DeadLetter]]:
        """Wait until so many jobs are final, those of `ids` among them, and so many letters put aside, or more; what
        there is then."""
        deadline = time.monotonic() + seconds
        while True:
            counts = await self.scene.counts()
            done = sum(c.completed + c.failed + c.cancelled + c.expired for c in counts.values())
            depth = await self._broker.depth(self.names.dead)
            aside = 0 if depth is None else depth.ready
            if done >= final and aside >= letters and await self.waiting() == 0 and await self._all_final(ids):
                return await self.scene.finals(), await self.letters()
            assert time.monotonic() < deadline, (
                f"{done} of {final} jobs final, {aside} of {letters} put aside: {counts}"
            )
            await asyncio.sleep(0.1)

    async def _all_final(self, ids: Sequence[str]) -> bool:
        return all(job is not None and job.state.final for job in await self.scene.find(QUEUE, ids))

    def connections_lost(self) -> list[str]:
        return self.fleet.lines("", "was lost|Connecting again failed|reading one at a time")

    async def __aenter__(self) -> Self:
        await self.scene.__aenter__()
        await self._broker.open()
        await self._broker.declare(self.names.exchanges())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._closing.aclose()
        await self._broker.close()
        await self.scene.__aexit__(kind, error, traceback)


def resident(pid: int, *, peak: bool = False) -> int:
    """Bytes of memory that a process has, or has had at most."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def unfinished(jobs: Mapping[str, Job], ids: Collection[str]) -> list[str]:
    """Those of the ids that are not completed jobs."""
    return [job_id for job_id in ids if job_id not in jobs or jobs[job_id].state is not State.COMPLETED]
