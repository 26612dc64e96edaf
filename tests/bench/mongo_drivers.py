"""The MongoDB store by PyMongo and by Motor, side by side: what each step of a job's life costs."""

from __future__ import annotations

import statistics
from functools import partial

from store_life import WEEK, Life, Spent, spent

from callboard.metadata.job import Keep
from mongo_space import DRIVERS, MongoSpace

BATCH, JOBS, ROUNDS = 64, 640, 5
LONE = 50


async def driver_table(url: str, pid: int) -> list[str]:
    """`pid`: mongod's. Each driver takes its turn in every round, in a namespace of its own, which is deleted."""
    found: dict[str, dict[str, list[Spent]]] = {}
    spaces = {driver: MongoSpace(url, driver) for driver in DRIVERS}
    stores = {driver: space.store() for driver, space in spaces.items()}
    try:
        for store in stores.values():
            await store.open()
        for turn in range(ROUNDS):
            for driver, store in stores.items():
                for kind, count, batch in ((f"in calls of {BATCH}", JOBS, BATCH), ("one by one", LONE, 1)):
                    life = Life(store, batch=batch, keep=Keep(age=WEEK, count=100_000))
                    await life.beat()
                    ids = [f"{turn}-{batch}-{n}" for n in range(count)]
                    steps = {
                        "enqueue": life.enqueue,
                        "published": life.published,
                        "claim": life.claim,
                        "finish": life.finish,
                    }
                    for step, take in steps.items():
                        taken = (await spent(pid, partial(take, ids))).per(count)
                        found.setdefault(f"{step}, {kind}", {}).setdefault(driver, []).append(taken)
    finally:
        for driver, store in stores.items():
            await store.close()
            await spaces[driver].delete()
    return _table(found)


def _table(found: dict[str, dict[str, list[Spent]]]) -> list[str]:
    heads = [f"{driver}: {what}" for what in ("mongod's CPU", "our CPU", "by the clock") for driver in DRIVERS]
    lines = ["| MongoDB, us a job | " + " | ".join(heads) + " |", "|---" + "|---:" * len(heads) + "|"]
    for name in sorted(found, key=lambda name: "one by one" in name):
        cells = [
            f"{statistics.median(getattr(one, what) for one in found[name][driver]):,.0f}"
            for what in ("server", "own", "wall")
            for driver in DRIVERS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
