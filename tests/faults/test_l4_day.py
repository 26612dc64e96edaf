"""L4: a day of the standard load, 50 jobs a second, with one fault a minute.

Injects, by the printed seed, once a minute: what the storm does to a process (SIGKILL, a stop of up to two and a half
leases, its connections reset, closed in one direction or dark), or something that befalls a server: RabbitMQ or the
store killed and started again, either of them stopped for up to three leases, a queue of jobs purged or deleted, the
store's scripts forgotten. The day is SOAK_SECONDS long (24 h by hand), with SOAK_FAULT_SECONDS (60) from one fault to
the next, and consists of rounds of ten minutes, each with a fleet and a namespace of its own, so that what is judged
stays small, and a fault is told within its round.
Bites: as the storm's: a worker is killed in the middle of a run in each round, and its jobs lose a lease; at least half
as many faults as minutes are counted.
Passes, at the end of each round: what the storm has to pass.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from callboard.runtime.registry import make_broker
from faults.fleet import LEASE_SECONDS
from faults.scene import SETTINGS, Scene, elapsed
from faults.storm import WORKERS, DurableStore, Restart, Storm
from faults.test_storm import KEEP_ALL, MARGIN_SECONDS, PATIENCE_SECONDS, SUBMITTED, Told, verdict_on
from faults.workload import QUEUES
from servers import RabbitMQServer, RedisServer

DAY_SECONDS = float(os.environ.get("SOAK_SECONDS") or 60)
ROUND_SECONDS = 600.0
FAULT_SECONDS = float(os.environ.get("SOAK_FAULT_SECONDS") or 60)  # from one fault to the next
RATE = 50
OF_SERVERS = 0.5  # of the faults
LONGEST_FREEZE = 3.0  # of a server, in leases
TICK_SECONDS = 1.0


class Day(Storm):
    """Faults that come one by one, some of them to the servers."""

    async def last(self, seconds: float) -> None:
        """For so long; returns when all are up again."""
        since, due = elapsed(), 0.0
        alone = asyncio.Lock()  # a server has one fault at a time
        async with asyncio.TaskGroup() as group:
            self._befall(self._random.choice(WORKERS), self._kill_worker, group)  # this may not depend on luck
            while (now := elapsed() - since) < seconds:
                if now >= due:
                    due += FAULT_SECONDS
                    if self._random.random() < OF_SERVERS:
                        group.create_task(self._befall_server(self._random.choice(self._of_servers), alone))
                    else:
                        self._strike(group)
                self._start_again()
                await self._scene.note_finals()
                await asyncio.sleep(TICK_SECONDS)
        for name in self._members:
            await self._is_up(self._scene.fleet[name])

    @property
    def _of_servers(self) -> Sequence[Restart]:
        common = [self.restart_broker, self.restart_store, self._freeze_broker, self._freeze_store, self._lose_queue]
        return [*common, self._forget_scripts] if isinstance(self._store, RedisServer) else common

    async def _befall_server(self, how: Restart, alone: asyncio.Lock) -> None:
        async with alone:
            await how()

    async def _freeze_broker(self) -> None:
        await self._freeze(self._broker)

    async def _freeze_store(self) -> None:
        await self._freeze(self._store)

    async def _freeze(self, server: DurableStore | RabbitMQServer) -> None:
        await asyncio.to_thread(server.pause)
        await asyncio.sleep(self._random.uniform(0.1, LONGEST_FREEZE) * LEASE_SECONDS)
        server.cont()
        self.done[f"{type(server).__name__} frozen"] += 1

    async def _lose_queue(self) -> None:
        broker = make_broker(self._broker.url, name="the day")
        await broker.open()
        try:
            queue = self._scene.names.job_queue(self._random.choice(QUEUES))
            how = self._random.choice(["purge", "delete"])
            await (broker.purge(queue) if how == "purge" else broker.delete(queue))
            self.done[f"{how} of a queue"] += 1
        finally:
            await broker.close()

    async def _forget_scripts(self) -> None:
        async with Redis.from_url(self._store.url) as redis:
            await redis.script_flush()
        self.done["scripts forgotten"] += 1


@pytest.mark.soak
async def test_a_day_with_a_fault_a_minute_loses_no_job(
    tmp_path: Path, seed: int, durable_store: DurableStore, own_rabbitmq: RabbitMQServer
) -> None:
    rounds = math.ceil(DAY_SECONDS / ROUND_SECONDS)
    seconds = round(DAY_SECONDS / rounds)
    for number in range(rounds):
        folder, began = tmp_path / f"round-{number}", elapsed()
        folder.mkdir()
        print(f"round {number + 1} of {rounds}, {seconds} s")
        async with (
            Scene(
                folder,
                seed=seed + number,
                store=durable_store.url,
                broker=own_rabbitmq.url,
                shares_store=True,  # with the rounds to come
                shares_broker=True,
                settings={**SETTINGS, **KEEP_ALL},
                settle_seconds=PATIENCE_SECONDS,
            ) as scene,
            Day(scene, store=durable_store, broker=own_rabbitmq, pause_seconds=FAULT_SECONDS) as day,
        ):
            told = Told(scene, day, store=durable_store, broker=own_rabbitmq)
            await day.start_fleet(apart=True, rate=RATE, limit=RATE * seconds, submitted=SUBMITTED)
            await scene.up()
            await told.schedule(seconds - MARGIN_SECONDS)
            await day.last(seconds)
            await verdict_on(told, jobs=RATE * seconds, began=began)
            assert day.done.total() - day.done["started again"] >= seconds / FAULT_SECONDS / 2
