"""What must not grow with the number of finished jobs that are kept, on both stores.

    python tests/bench/bench_kept.py [redis | mongo]

Keeps 1,000 finished jobs in one namespace and 1,000,000 in another (`CALLBOARD_BENCH_KEPT`), on one server of its own,
and measures the same calls on both in turns. Prints, for each: microseconds of the server's processor time, of ours,
and by the clock, medians, with the ratio of many to few. Each is to be 1.3 at most.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1]))

from pymongo import MongoClient
from store_life import WEEK, Life, Spent, spent

from callboard.metadata.contract import Store
from callboard.metadata.job import Keep
from callboard.metadata.mongo import MongoStore
from callboard.metadata.redis import RedisStore
from servers import MongoServer, RedisServer

FEW, MANY = 1_000, int(os.environ.get("CALLBOARD_BENCH_KEPT", "1000000"))
ROUNDS = 60
MOST = 1.3
BATCH = 32


async def measure(few: Life, many: Life, pid: int) -> dict[str, tuple[list[Spent], list[Spent]]]:
    found: dict[str, tuple[list[Spent], list[Spent]]] = {}
    for turn in range(ROUNDS):
        for place, life in enumerate((few, many) if turn % 2 else (many, few)):
            ids = [uuid4().hex for _ in range(BATCH)]
            calls: dict[str, Callable[[], Awaitable[None]]] = {
                "enqueue": lambda life=life, ids=ids: life.enqueue(ids),
                "published": lambda life=life, ids=ids: life.published(ids),
                "claim": lambda life=life, ids=ids: life.claim(ids),
                "finish": lambda life=life, ids=ids: life.finish(ids),
                "counts": lambda life=life: life.counts(),
                "page": lambda life=life: life.page(),
                "page at 900": lambda life=life: life.page(900),
                "prune": lambda life=life: life.prune(),
            }  # fmt: skip
            await life.beat()
            for name, call in calls.items():
                both = found.setdefault(name, ([], []))
                both[place if turn % 2 else 1 - place].append(await spent(pid, call))
    return found


async def keep(life: Life, wanted: int) -> None:
    for start in range(0, wanted, 1_000):
        await life.beat()
        ids = [uuid4().hex for _ in range(min(1_000, wanted - start))]
        await life.enqueue(ids)
        await life.claim(ids)
        await life.finish(ids)


def copy_kept(url: str, namespace: str, wanted: int) -> None:
    """On MongoDB, the rest by copies of what `keep` made: it would take a quarter of an hour by itself."""
    with MongoClient[dict[str, Any]](url) as client:
        jobs = client["callboard"][f"{namespace}.jobs"]
        (model,) = jobs.find({"state": "completed"}, {"_id": 0}, limit=1)
        (group,) = jobs.find({"state": "group"})
        for start in range(group["count"], wanted, 1_000):
            ids = [uuid4().hex for _ in range(min(1_000, wanted - start))]
            copies = [
                {**model, "id": id, "name": model["name"].replace(model["id"], id), "at": model["at"] + start}
                for id in ids
            ]
            jobs.insert_many(copies, ordered=False)
        jobs.update_one({"name": group["name"]}, {"$set": {"count": wanted}})


async def main(name: str, make: Callable[[str], Store], pid: int, copy: Callable[[str, int], None] | None) -> None:
    stores = {wanted: make(f"bench-{wanted}") for wanted in (FEW, MANY)}
    try:
        for wanted, store in stores.items():
            await store.open()
            await keep(Life(store, batch=125, keep=Keep(age=WEEK)), FEW if copy is not None else wanted)
            if copy is not None:
                copy(f"bench-{wanted}", wanted)
        few, many = (Life(store, batch=BATCH, keep=Keep(age=WEEK)) for store in stores.values())
        report(name, await measure(few, many, pid))
    finally:
        for store in stores.values():
            await store.close()


def report(name: str, found: dict[str, tuple[list[Spent], list[Spent]]]) -> None:
    print(f"\n{name}: {FEW:,} and {MANY:,} finished jobs kept; us a call (of {BATCH} jobs where it takes some)")
    print(f"{'':12}" + "".join(f"{what:>30}" for what in ("server's CPU", "our CPU", "by the clock")))
    for operation, both in found.items():
        line = f"{operation:12}"
        for what in ("server", "own", "wall"):
            few, many = (statistics.median(getattr(one, what) for one in some) for some in both)
            line += f"{few:11.0f} {many:9.0f} {many / few:5.2f}{' !!' if many / few > MOST else '   '}"
        print(line, flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["redis", "mongo"]
    with tempfile.TemporaryDirectory() as folder:
        if "redis" in wanted:
            with RedisServer(Path(folder) / "redis", appendfsync="everysec") as redis:
                url = redis.url
                asyncio.run(main("Redis", lambda space: RedisStore.from_url(url, namespace=space), redis.pid, None))
        if "mongo" in wanted:
            with MongoServer(Path(folder) / "mongo", replica_set=True) as mongo:
                url = mongo.url
                asyncio.run(
                    main(
                        "MongoDB",
                        lambda space: MongoStore.from_url(url, namespace=space),
                        mongo.pid,
                        lambda space, count: copy_kept(url, space, count),
                    )
                )
