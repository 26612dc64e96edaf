"""Everything at once, on either store: processes killed and stopped, connections cut, servers restarted.

Injects, at random and by the printed seed, while two producers send jobs with retries and delays, a tenth of them by
intake, and four schedules occur every second: SIGKILL of workers, mostly in the middle of a run, and of every other
actor, started again within a second; SIGSTOP of any of them for up to two and a half leases; connections to either
server reset, closed in one direction or dark for up to a lease; SIGKILL of RabbitMQ and of the store, each of which
keeps what it has acknowledged. Bites: a kill counts if the ledger shows a handler of that process under way, a lost
lease if a record tells of it; there have to be some of both.
Passes: every accepted job, and one for each occurrence, is completed; a job ran more often than its failures explain
only as often as its record counts a lost lease, and only after a run by the very worker that lost it; nothing was put
aside, the audit is clean, the broker's queues are empty. Repeated runs are counted and printed.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from callboard import Callboard
from faults.occurrences import every_second
from faults.scene import CONNECTION_LOST, SETTINGS, Scene, elapsed
from faults.storm import DurableStore, Restart, Storm
from faults.workload import QUEUES
from servers import RabbitMQServer

JOBS = int(os.environ.get("SOAK_JOBS") or 50_000)
SUBMITTED = 0.1
KEEP_ALL = {"CALLBOARD_KEEP_COMPLETED_COUNT": "1000000"}
# With a backlog of thousands, tickets are late without being lost.
UNHURRIED = {"CALLBOARD_OVERTAKEN_SECONDS": "30", "CALLBOARD_RECONCILE_GRACE_SECONDS": "10"}
PATIENCE_SECONDS = 900.0
MARGIN_SECONDS = 5  # after the last occurrence


class Told:
    """What a storm is, and what came of it."""

    def __init__(self, scene: Scene, storm: Storm, *, store: DurableStore, broker: RabbitMQServer) -> None:
        self.scene = scene
        self.storm = storm
        self._app = Callboard(broker=broker.url, store=store.url, namespace=scene.namespace)

    async def schedule(self, seconds: int) -> None:
        """A schedule in each queue that occurs every second, so many times."""
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        async with self._app as app:
            for queue in map(app.queue, QUEUES):
                name = f"every-second-{queue.name}"
                self.scene.occurrences |= await every_second(queue, name, start=start, times=seconds)

    async def end(self) -> None:
        """The producers have sent all they had to, every occurrence was fired, everything is final."""
        await self.scene.until(
            lambda: not any(producer.running for producer in self.scene.producers),
            "the producers have sent all",
            PATIENCE_SECONDS,
        )
        async with asyncio.timeout(PATIENCE_SECONDS), self._app as app:
            for queue in map(app.queue, QUEUES):
                while any(schedule.next_run for schedule in await queue.list_repeatables()):
                    await asyncio.sleep(0.2)
        await self.scene.all_recorded()
        await self.scene.settle()

    async def dead_letters(self) -> int:
        async with self._app as app:
            depth = await app.connections.broker.depth(self.scene.names.dead)
        return 0 if depth is None else depth.ready


async def weather(told: Told, *, jobs: int, seconds: int, apart: bool, restarts: Sequence[Restart]) -> None:
    """`restarts` come one after the other, at even distances."""
    scene, storm, began = told.scene, told.storm, elapsed()
    await storm.start_fleet(apart=apart, rate=jobs / seconds, limit=jobs, submitted=SUBMITTED)
    await scene.up()
    await told.schedule(seconds - MARGIN_SECONDS)
    step = seconds / (len(restarts) + 1)
    await storm.rage(seconds, restarts={step * number: each for number, each in enumerate(restarts, start=1)})
    await verdict_on(told, jobs=jobs, began=began)


async def verdict_on(told: Told, *, jobs: int, began: float) -> None:
    """What must hold once producers and schedules have come to their end; waits for it. `began`: by `elapsed()`."""
    await told.end()
    scene, storm = told.scene, told.storm
    verdict = await scene.judge(CONNECTION_LOST)
    finals = await scene.finals()
    lost = sum(job.stalled for job in finals.values())
    repeats = Counter(run.job for run in verdict.repeated)
    print(
        f"{len(finals)} jobs final ({dict(Counter(str(job.state) for job in finals.values()))}), "
        f"{sum(job.failures for job in finals.values())} retries, {verdict.starts} runs, "
        f"{len(verdict.repeated)} of them beyond one per attempt, of {len(repeats)} jobs; "
        f"{lost} times a job's lease was lost; {len(scene.refused())} late finishes refused; "
        f"{len(scene.journals('uncertain'))} uncertain answers; {dict(storm.done)}; {elapsed() - began:.0f} s in all"
    )
    assert verdict.accepted == jobs + len(scene.occurrences)
    assert set(finals) == scene.occurrences | {line.job for line in scene.journals("submitted")}
    assert [job for job, often in repeats.items() if often > finals[job].stalled] == []
    assert await told.dead_letters() == 0
    assert verdict.kills_that_hit >= 1
    assert lost >= 1


@asynccontextmanager
async def told(
    folder: Path,
    *,
    seed: int,
    store: DurableStore,
    broker: RabbitMQServer,
    pause_seconds: float,
    changed: Mapping[str, str] | None = None,
) -> AsyncIterator[Told]:
    settings = {**SETTINGS, **KEEP_ALL, **(changed or {})}
    async with (
        Scene(
            folder, seed=seed, store=store.url, broker=broker.url, settings=settings, settle_seconds=PATIENCE_SECONDS
        ) as scene,
        Storm(scene, store=store, broker=broker, pause_seconds=pause_seconds) as storm,
    ):
        yield Told(scene, storm, store=store, broker=broker)


@pytest.mark.slow
async def test_no_job_is_lost_and_none_repeated_without_a_lost_lease_in_a_storm(
    tmp_path: Path, seed: int, durable_store: DurableStore, own_rabbitmq: RabbitMQServer
) -> None:
    async with told(tmp_path, seed=seed, store=durable_store, broker=own_rabbitmq, pause_seconds=0.8) as one:
        restarts = [one.storm.restart_store, one.storm.restart_broker]
        await weather(one, jobs=1500, seconds=20, apart=False, restarts=restarts)


@pytest.mark.soak
async def test_so_it_is_with_fifty_thousand_jobs_in_five_minutes(
    tmp_path: Path, seed: int, durable_store: DurableStore, own_rabbitmq: RabbitMQServer
) -> None:
    async with told(
        tmp_path, seed=seed, store=durable_store, broker=own_rabbitmq, pause_seconds=1.5, changed=UNHURRIED
    ) as one:
        restarts = [one.storm.restart_broker, one.storm.restart_store, one.storm.restart_broker]
        await weather(one, jobs=JOBS, seconds=300, apart=True, restarts=restarts)
