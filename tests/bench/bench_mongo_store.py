"""What each operation of the MongoDB store costs, in batches of 1 and of 128, by PyMongo and by Motor.

    python tests/bench/bench_mongo_store.py

Prints what each step of a job's life costs in processor time, of the server and of the caller with each driver. Then,
for each operation: round trips a call (commands that the driver sent), microseconds a job as the caller sees
them with each driver, and their ratio to a bare ping (batches of 1) or to an insert of as many small documents (batches
of 128), both journaled as the store's writes are, in the same run. Medians. It starts a replica set of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mongo_drivers import driver_table
from pymongo.monitoring import CommandListener, CommandStartedEvent
from pymongo.write_concern import WriteConcern
from store_life import BOOT, HISTORY, PAYLOAD, QUEUE, RESULT, WEEK

from callboard.metadata.contract import (
    Delays,
    Ending,
    Inspection,
    Jobs,
    Outcome,
    Retention,
    Sent,
    Ticket,
    Workers,
)
from callboard.metadata.job import Keep, NewJob
from callboard.metadata.mongo import MongoStore
from callboard.runtime.clock import SystemClock
from mongo_space import DRIVERS, MongoSpace
from servers import MongoServer

KEEP = Keep(age=WEEK, count=2_000)
ROUNDS = {1: 150, 128: 30}


class Trips(CommandListener):
    """Commands sent. Calls wait for each other here, but for reads that go out together, which count as one each."""

    def __init__(self) -> None:
        self.count = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.count += 1

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


class Bench:
    def __init__(self, store: MongoStore, raw: Any, size: int, trips: Trips) -> None:
        self.store, self.raw, self.size, self.trips = store, raw, size, trips
        self.times: dict[str, list[float]] = {}
        self.counts: dict[str, list[int]] = {}
        self.clock = SystemClock()

    async def run(self, rounds: int) -> None:
        await self.store.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=self.clock.now())
        for turn in range(rounds):
            await self._timed("reference", self._reference)
            await self._life([f"{self.size}-{turn}-{n}" for n in range(self.size)])

    async def _reference(self) -> object:
        if self.size == 1:
            return await self.raw.database.command("ping")
        return await self.raw.insert_many([{"state": "waiting", "payload": PAYLOAD} for _ in range(self.size)])

    async def _life(self, ids: list[str]) -> None:
        jobs, now = self.store.get(Jobs), self.clock.now()
        new = [NewJob(id=id, queue=QUEUE, task="bench.task", payload=PAYLOAD, created_at=now) for id in ids]
        late = [NewJob(id=f"l{id}", queue=QUEUE, task="bench.task", payload=PAYLOAD, created_at=now, run_at=now + 1000)
                for id in ids]  # fmt: skip
        done = [
            Outcome(id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED, result=RESULT, history=HISTORY, keep=KEEP)
            for id in ids
        ]
        tickets = [Ticket(id, 1) for id in ids]
        inspection, retention = self.store.get(Inspection), self.store.get(Retention)
        await self._timed("enqueue", lambda: jobs.enqueue(new, now=now, grace=1000))
        await self._timed("enqueue again", lambda: jobs.enqueue(new, now=now, grace=1000))
        await self._timed("published", lambda: jobs.published([Sent(QUEUE, id, 1) for id in ids], now=now))
        await self._timed("claim", lambda: jobs.claim(QUEUE, BOOT, tickets, now=now, keep_expired=KEEP))
        await self._timed("claim again", lambda: jobs.claim(QUEUE, BOOT, tickets, now=now, keep_expired=KEEP))
        await self._timed("get", lambda: inspection.get(QUEUE, ids))
        await self._timed("heartbeat", lambda: self.store.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=now))
        await self._timed("finish", lambda: jobs.finish(QUEUE, done, now=now, grace=1000))
        await self._timed("finish again", lambda: jobs.finish(QUEUE, done, now=now, grace=1000))
        await self._timed("counts", lambda: inspection.counts([QUEUE]))
        await self._timed("enqueue delayed", lambda: jobs.enqueue(late, now=now, grace=1000))
        await self._timed("cancel", lambda: jobs.cancel(QUEUE, [f"l{id}" for id in ids], now=now, keep=KEEP))
        await self._timed("retry", lambda: jobs.retry(QUEUE, [f"l{id}" for id in ids], now=now, grace=0))
        await self._timed("take_unpublished", lambda: jobs.take_unpublished([QUEUE], now=now, grace=0, limit=self.size))
        await self._timed("remove", lambda: jobs.remove(QUEUE, [f"l{id}" for id in ids], now=now))
        soon = [NewJob(id=f"d{id}", queue=QUEUE, task="t", payload=PAYLOAD, created_at=now, run_at=now) for id in ids]
        await jobs.enqueue(soon, now=now - 1, grace=1000)
        delays = self.store.get(Delays)
        await self._timed("take_due", lambda: delays.take_due([QUEUE], now=now, grace=0, limit=self.size))
        await jobs.remove(QUEUE, [f"d{id}" for id in ids], now=now)
        await self._timed("prune", lambda: retention.prune([QUEUE], now=now, adoption_window=-1, limit=self.size))

    async def _timed(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        before, start = self.trips.count, perf_counter()
        await call()
        self.times.setdefault(name, []).append((perf_counter() - start) * 1e6 / self.size)
        self.counts.setdefault(name, []).append(self.trips.count - before)


async def bench(url: str, driver: str, size: int) -> Bench:
    space, trips = MongoSpace(url, driver), Trips()
    client = DRIVERS[driver](url, event_listeners=[trips])
    store = space.store_on(client)
    raw = client[space.database].get_collection(
        f"{space.namespace}.reference", write_concern=WriteConcern(w="majority", j=True)
    )
    await store.open()
    found = Bench(store, raw, size, trips)
    try:
        await found.run(ROUNDS[size])
    finally:
        await raw.drop()
        await store.close()
        await space.delete()
    return found


def report(size: int, benches: dict[str, Bench]) -> None:
    what = "a ping" if size == 1 else f"an insert of {size} small documents"
    print(f"\nbatches of {size}; us a job, and as a multiple of {what}")
    print(f"{'operation':18} {'trips':>5} " + " ".join(f"{driver:>10} {'ratio':>6}" for driver in benches))
    first = next(iter(benches.values()))
    for name, counts in first.counts.items():
        cells = []
        for one in benches.values():
            median, reference = statistics.median(one.times[name]), statistics.median(one.times["reference"])
            cells.append(f"{median:10.1f} {median / reference:6.2f}")
        print(f"{name:18} {statistics.median(counts):5.0f} " + " ".join(cells))


async def main(url: str, pid: int) -> None:
    print("\n".join(await driver_table(url, pid)))
    for size in ROUNDS:
        report(size, {driver: await bench(url, driver, size) for driver in DRIVERS})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, MongoServer(Path(folder), replica_set=True) as server:
        asyncio.run(main(server.url, server.pid))
