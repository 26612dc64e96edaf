"""What each operation of the Redis store costs, in batches of 1 and of 128.

    python tests/bench/bench_redis_store.py [redis://...]

Prints, for each operation: microseconds a job inside Redis (by INFO commandstats, EVALSHA alone), microseconds a job as
the caller sees them, and the latter's ratio to a bare PING (batches of 1) or to a pipeline of HSETs of the same size
(batches of 128) in the same run. Medians; `best` is the fastest round, for machines that others
use too. Works in a namespace of its own, which it deletes.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

from redis.asyncio import Redis

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
from callboard.metadata.redis import RedisStore
from callboard.runtime.clock import SystemClock
from redis_space import RedisSpace

QUEUE, BOOT = "bench", "0123456789abcdef0123456789abcdef"
PAYLOAD, RESULT, HISTORY = bytes(300), bytes(50), bytes(200)
KEEP = Keep(age=7 * 24 * 3600 * 1000, count=2_000)
ROUNDS = {1: 300, 128: 60}


class Bench:
    def __init__(self, store: RedisStore, raw: Redis, size: int) -> None:
        self.store, self.raw, self.size = store, raw, size
        self.inside: dict[str, list[float]] = {}
        self.outside: dict[str, list[float]] = {}
        self.clock = SystemClock()

    async def run(self) -> None:
        await self.store.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=self.clock.now())
        for turn in range(ROUNDS[self.size]):
            await self._reference()
            await self._life([f"{self.size}-{turn}-{n}" for n in range(self.size)])

    async def _reference(self) -> None:
        start = perf_counter()
        if self.size == 1:
            await self.raw.ping()
        else:
            pipeline = self.raw.pipeline(transaction=False)
            for n in range(self.size):
                pipeline.hset(f"bench-reference-{n}", mapping={"state": "waiting", "payload": PAYLOAD})
            await pipeline.execute()
        self.outside.setdefault("reference", []).append((perf_counter() - start) * 1e6 / self.size)

    async def _life(self, ids: list[str]) -> None:
        jobs, now = self.store.get(Jobs), self.clock.now()
        new = [NewJob(id=id, queue=QUEUE, task="bench.task", payload=PAYLOAD, created_at=now) for id in ids]
        late = [NewJob(id=f"l{id}", queue=QUEUE, task="bench.task", payload=PAYLOAD, created_at=now, run_at=now + 1000)
                for id in ids]  # fmt: skip
        done = [
            Outcome(id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED, result=RESULT, history=HISTORY, keep=KEEP)
            for id in ids
        ]
        await self._timed("enqueue", lambda: jobs.enqueue(new, now=now, grace=1000))
        await self._timed("published", lambda: jobs.published([Sent(QUEUE, id, 1) for id in ids], now=now))
        await self._timed("claim", lambda: jobs.claim(QUEUE, BOOT, [Ticket(id, 1) for id in ids], now=now,
                                                      keep_expired=KEEP))  # fmt: skip
        await self._timed("get", lambda: self.store.get(Inspection).get(QUEUE, ids))
        await self._timed("heartbeat", lambda: self.store.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=now))
        # Until `KEEP.count` is reached a finish prunes nothing; from then on, one record for each that ends.
        pruning = (await self.store.get(Inspection).counts([QUEUE]))[QUEUE].completed + self.size > (KEEP.count or 0)
        name = "finish, pruning" if pruning else "finish"
        await self._timed(name, lambda: jobs.finish(QUEUE, done, now=now, grace=1000))
        await self._timed("counts", lambda: self.store.get(Inspection).counts([QUEUE]))
        await self._timed("enqueue delayed", lambda: jobs.enqueue(late, now=now, grace=1000))
        await self._timed("cancel", lambda: jobs.cancel(QUEUE, [f"l{id}" for id in ids], now=now, keep=KEEP))
        await self._timed("retry", lambda: jobs.retry(QUEUE, [f"l{id}" for id in ids], now=now, grace=0))
        await self._timed("take_unpublished", lambda: jobs.take_unpublished([QUEUE], now=now, grace=0, limit=self.size))
        await self._timed("remove", lambda: jobs.remove(QUEUE, [f"l{id}" for id in ids], now=now))
        await jobs.enqueue(
            [NewJob(id=f"d{id}", queue=QUEUE, task="t", payload=PAYLOAD, created_at=now, run_at=now) for id in ids],
            now=now - 1, grace=1000,
        )  # fmt: skip
        delays = self.store.get(Delays)
        await self._timed("take_due", lambda: delays.take_due([QUEUE], now=now, grace=0, limit=self.size))
        await jobs.remove(QUEUE, [f"d{id}" for id in ids], now=now)
        retention = self.store.get(Retention)
        await self._timed("prune", lambda: retention.prune([QUEUE], now=now, adoption_window=-1, limit=self.size))

    async def _timed(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        before = await self._spent()
        start = perf_counter()
        await call()
        outside = perf_counter() - start
        inside = await self._spent() - before
        self.outside.setdefault(name, []).append(outside * 1e6 / self.size)
        self.inside.setdefault(name, []).append(inside / self.size)

    async def _spent(self) -> int:
        info = await self.raw.info("commandstats")
        return int(info.get("cmdstat_evalsha", {"usec": 0})["usec"])

    def report(self) -> None:
        reference = statistics.median(self.outside["reference"])
        what = "PING" if self.size == 1 else f"pipeline of {self.size} HSETs"
        print(f"\nbatches of {self.size}; {what}: {reference:.1f} us a job")
        print(f"{'operation':18} {'in Redis':>9} {'best':>6} {'as called':>10} {'ratio':>6}")
        for name, inside in self.inside.items():
            outside = statistics.median(self.outside[name])
            median, best = statistics.median(inside), min(inside)
            print(f"{name:18} {median:9.1f} {best:6.1f} {outside:10.1f} {outside / reference:6.2f}")


async def main(url: str) -> None:
    for size in ROUNDS:
        space = RedisSpace(url)
        store, raw = space.store(), Redis.from_url(url, protocol=2)
        await store.open()
        bench = Bench(store, raw, size)
        try:
            await bench.run()
            bench.report()
        finally:
            await store.close()
            await raw.delete(*(f"bench-reference-{n}" for n in range(size)))
            await raw.aclose()
            await space.delete()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379/0"))
