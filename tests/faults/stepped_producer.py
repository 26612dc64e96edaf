"""A producer that hands in jobs in each way there is, and may be killed at a step of it: before or after a call of its
store or its broker.

    produce(Deployed(...), "a", journal, Moment("Jobs.enqueue", "after"))     kills its own process (-9) there
    produce(Deployed(...), "a", journal, None, trace)       goes through all ways, then ends; writes each step down

Its journal has lines of faults/producer.py: `submitted <id>` before a call, `accepted <id>` when it has said yes.
Between two ways all that is under way is finished, so that the n-th step of a name is the same in each process. `held`:
a step whose call never reaches its server; what else is under way goes on.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from msgspec import Struct

from callboard.metadata.job import NewJob
from callboard.runtime.options import CallOptions
from faults.fleet import Deployed
from faults.producer import Journal
from faults.stepping import QUEUE, Moment, SteppingApp, Steps

DELAY_MS = 300


class Way(Struct, frozen=True, kw_only=True):
    """How jobs are handed in. `fresh`: their ids are made for the call, which is when the ticket leaves with the record
    and not behind it."""

    name: str
    fresh: bool = False
    confirm: bool = False
    delay_ms: int | None = None
    count: int = 1


WAYS = (
    Way(name="fresh", fresh=True),
    Way(name="fresh-confirmed", fresh=True, confirm=True),
    Way(name="named"),
    Way(name="confirmed", confirm=True),
    Way(name="delayed", delay_ms=DELAY_MS),
    Way(name="bulk", count=2),
)


def produce(
    deployed: Deployed,
    name: str,
    journal: Path,
    moment: Moment | None,
    trace: Path | None = None,
    held: str | None = None,
) -> None:
    """The whole life of one process."""
    os.environ |= deployed.settings
    asyncio.run(_produce(deployed, name, Journal(journal), Steps(moment, trace, held=held)))


async def _produce(deployed: Deployed, name: str, journal: Journal, steps: Steps) -> None:
    app = SteppingApp(broker=deployed.broker, store=deployed.store, namespace=deployed.namespace)
    app.steps = steps
    async with app:
        connections = app.connections
        for way in WAYS:
            jobs = _jobs(app, name, way)
            for job in jobs:
                journal.write("submitted", job.id, job.run_at or 0)
            for answer in await connections.producer.enqueue(jobs, confirm=way.confirm, fresh=way.fresh):
                journal.write("accepted", answer.id, app.clock.elapsed())
            await connections.producer.drain()
            await connections.dispatcher.flush()


def _jobs(app: SteppingApp, name: str, way: Way) -> list[NewJob]:
    """As `task.enqueue`, `queue.add` and `queue.add_bulk` make them."""
    ids = [None] if way.fresh else [f"{name}-{way.name}-{number}" for number in range(way.count)]
    options = [CallOptions(queue=QUEUE, job_id=one, delay_ms=way.delay_ms) for one in ids]
    return [app.new_job("work", [0, False], {}, each) for each in options]
