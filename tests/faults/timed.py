"""What the tests and the benchmark of time stand on: a place on either store, jobs with due times, and what became of
them.

    async with Timed(tmp_path, store=redis_url, broker=amqp_url) as timed:
        await timed.start(scanners=3, workers=1)
        await timed.enqueue(jobs=500, over_seconds=10)
        runs = await timed.runs(500)
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import aio_pika
from msgspec import Struct

from callboard import Callboard
from callboard.brokers.topology import Names
from callboard.runtime.wire import decode_bundle
from faults.fleet import CONNECTED, SERVES, Deployed, Fleet, Member, actor
from faults.timed_tasks import APP, QUEUE, RUNS
from mongo_space import MongoSpace
from redis_space import RedisSpace

LEAD_SECONDS = 3.0  # between the recording of jobs and the first due time
END_SECONDS = 60.0


class Run(Struct, frozen=True):
    number: int
    due: int  # ms since the epoch
    started: int  # ns since the epoch

    @property
    def late(self) -> float:
        """Milliseconds; below zero: early."""
        return self.started / 1e6 - self.due


class Timed:
    """A namespace of its own on servers that others may use too, and a fleet in it."""

    def __init__(self, folder: Path, *, store: str, broker: str, settings: Mapping[str, str] | None = None) -> None:
        self.space = MongoSpace(store) if store.startswith("mongodb") else RedisSpace(store)
        self.names = Names(self.space.namespace)
        self.deployed = Deployed(
            namespace=self.space.namespace, store=store, broker=broker, settings=dict(settings or {})
        )
        self.fleet = Fleet(folder / f"fleet-{secrets.token_hex(4)}", self.deployed, **{RUNS: str(folder / "runs")})
        self.app = Callboard(broker=broker, store=store, namespace=self.space.namespace)
        folder.mkdir(parents=True, exist_ok=True)
        self._runs = folder / "runs"
        self._copies: list[int] = []
        self._spy: Any = None

    async def start(self, *, scanners: int = 0, schedulers: int = 0, workers: int = 1, recovery: int = 1) -> None:
        """Return once every process has reached broker and store, and workers consume."""
        for kind, count in (("delayed-scanner", scanners), ("repeatable-scheduler", schedulers)):
            for number in range(count):
                self.fleet.start(f"{kind}-{number}", actor(kind, app=APP))
        for number in range(recovery):
            self.fleet.start(f"recovery-{number}", actor("stalled-recovery", app=APP))
        for number in range(workers):
            self.fleet.start(f"worker-{number}", actor("worker", app=APP, concurrency=50))
        await asyncio.gather(*(up(member) for member in self.fleet))

    async def enqueue(self, jobs: int, *, over_seconds: float, seed: int = 1) -> bool:
        """Record jobs whose due times are spread at random, from LEAD_SECONDS after now; whether that was in time."""
        random = Random(seed)
        first = self.app.clock.now() + round(LEAD_SECONDS * 1000)
        dues = [first + random.randrange(round(over_seconds * 1000)) for _ in range(jobs)]
        await self.app.queue(QUEUE).add_bulk(
            [
                {"task_id": "note", "args": [number, due], "run_at": due / 1000, "job_id": f"note-{number}"}
                for number, due in enumerate(dues)
            ]
        )
        return self.app.clock.now() < first

    async def runs(self, jobs: int) -> list[Run]:
        """Every run there was, once each of the jobs has run, in the order of their due times."""
        async with asyncio.timeout(END_SECONDS):
            while len({run.number for run in self._read()}) < jobs:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # for a second run of one of them, were there one
        return sorted(self._read(), key=lambda run: run.due)

    def _read(self) -> list[Run]:
        if not self._runs.exists():
            return []
        return [Run(*map(int, line.split())) for line in self._runs.read_text().splitlines()]

    async def spy(self) -> None:
        """From now on a copy of each message on the jobs exchange is counted."""
        self._spy = await aio_pika.connect(self.deployed.broker)
        channel = await self._spy.channel()
        await self.app.connections.dispatcher.declare(QUEUE)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(self.names.jobs, routing_key=QUEUE)

        async def count(message: Any) -> None:
            bundle, malformed = decode_bundle(message.body)
            assert not malformed
            self._copies.append(len(bundle.jobs))

        await queue.consume(count, no_ack=True)

    @property
    def messages(self) -> int:
        return len(self._copies)

    @property
    def tickets(self) -> int:
        return sum(self._copies)

    async def __aenter__(self) -> Self:
        await self.app.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.fleet.close)
        if kind is not None:
            print(self.fleet.tails())
        if self._spy is not None:
            await self._spy.close()
        await self.app.close()
        await self.space.delete()
        async with await aio_pika.connect(self.deployed.broker) as connection:
            channel = await connection.channel()
            for name in (self.names.job_queue(QUEUE), self.names.intake, self.names.dead):
                await channel.queue_delete(name)
            for exchange in self.names.exchanges().exchanges:
                await channel.exchange_delete(exchange.name)


async def up(member: Member) -> None:
    async with asyncio.timeout(END_SECONDS):
        while not member.said(SERVES if member.name.startswith("worker") else CONNECTED):
            await asyncio.sleep(0.02)


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def wrong(runs: Sequence[Run], jobs: int) -> str | None:
    """None: each of the jobs ran once, and none before its time."""
    times = Counter(run.number for run in runs)
    often = [number for number, count in times.items() if count > 1]
    early = [run for run in runs if run.late < 0]
    if len(times) == jobs and not often and not early:
        return None
    return f"of {jobs} jobs {jobs - len(times)} never ran, {often[:5]} more than once, {early[:5]} early"
