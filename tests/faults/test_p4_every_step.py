"""P4: worker, scanner, scheduler, recovery and retention are killed (-9) once at every step that they take.

Injects: for each step of the actors some jobs are recorded: to run at once, in a thread, to fail at first, delayed, and
one whose ticket nobody sent; and a schedule that occurs twice. The process that runs all five actors kills itself at
that step: before a call of its store or its broker, or after the answer. So each one finds what the one before it left,
and its boot as a dead worker. Bites: each process has to end by that very signal; and what such actors do without
faults, which is written down, has to be these steps and no others. The soak plays all of them, on both stores.
Passes: each job and each occurrence is completed; a run is repeated only where the record tells of a lost lease, and
there is no second start in a dispatch; the audit is clean.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections import Counter
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.metadata.contract import Jobs
from callboard.metadata.job import State
from callboard.metadata.standing import StandingClaims
from callboard.runtime.options import CallOptions
from faults import ledger, stepping
from faults.checker import Evidence, Kill, check
from faults.occurrences import every_second
from faults.scene import SETTINGS, Scene, describe, elapsed, leases_lost, unfinished
from faults.stepping import ACK, QUEUE, Moment, ended

ACTORS = ["worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention"]
PATIENCE_SECONDS = 90.0
LEASE = {"CALLBOARD_LEASE_SECONDS": "1", "CALLBOARD_MAX_STALLED": "1000"}
ROUND = {"plain": {}, "thread": {}, "fails": {}, "delayed": {"delay": 0.3}}
# Every step that these actors take with such jobs.
STEPS = [
    *("broker.declare", "broker.consume", "publish jobs", "publish events", "publish control", ACK),
    *("QueueControl.register", "QueueControl.queues", "QueueControl.paused"),
    *("Jobs.claim", "Jobs.finish", "Jobs.published", "Jobs.take_unpublished", "Jobs.take_overtaken"),
    *("Delays.take_due", "Schedules.due", "Schedules.fire"),
    *("Workers.workers", "Workers.declare_dead", "Workers.take_stalled", "broker.depth", "Retention.prune"),
]
STANDING = ["StandingClaims.hear", "StandingClaims.stand"]  # where the store offers it
# Of actors that are told to stop; of a worker that looks whether its store, if it is not durable, has forgotten an end.
AT_TIMES = {"Workers.leave", "Inspection.page"}
DECISIVE = [
    *("Jobs.claim", "Jobs.finish", "publish jobs", "Jobs.take_unpublished", "Delays.take_due", "Schedules.fire"),
    *("Workers.declare_dead", "Workers.take_stalled"),
]
PRELOADED = [f"callboard.{name}" for name in ("runtime.testing", "brokers.rabbitmq", "metadata.redis", "actors.worker")]
FORKS = multiprocessing.get_context("forkserver")


class Rounds:
    """What is recorded, and the processes that are to run it."""

    def __init__(self, scene: Scene, app: Callboard, folder: Path) -> None:
        self.scene = scene
        self.wanted: list[str] = []
        self._app = app
        self._trace = folder / "trace"

    async def record(self, number: int) -> None:
        queue = self._app.queue(QUEUE)
        for name, options in ROUND.items():
            job_id = f"round-{number:02}-{name}"
            task = "work-in-thread" if name == "thread" else "work"
            await queue.add(task, [20, name == "fails"], job_id=job_id, **options)
            self.wanted.append(job_id)
        unsent = self._app.new_job("work", [0, False], {}, CallOptions(job_id=f"round-{number:02}-unsent", queue=QUEUE))
        now = self._app.clock.now()
        await self._app.connections.store.get(Jobs).enqueue([unsent], now=now, grace=0)
        self.wanted.append(unsent.id)
        start = datetime.now(UTC).replace(microsecond=0)
        self.wanted += await every_second(queue, f"round-{number:02}", start=start, times=2, milliseconds=1)

    def start(self, moment: Moment | None) -> ForkServerProcess:
        trace = self._trace if moment is None else None
        given = (self.scene.fleet.deployed, ACTORS, moment, trace, str(self.scene.ledger))
        process = FORKS.Process(target=stepping.run, args=given, daemon=True)
        process.start()
        return process

    def steps(self) -> Counter[str]:
        return Counter(self._trace.read_text().splitlines() if self._trace.exists() else ())

    async def drain(self, *, until: set[str]) -> None:
        """Actors that nothing happens to, until all is done and they have taken these steps."""
        process = self.start(None)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while unfinished(await self.scene.counts()) or until - self.steps().keys() or await self._occurs():
                assert process.is_alive(), "the actors that nothing was to happen to have ended"
                await asyncio.sleep(0.1)
        process.terminate()
        assert await ended(process) == 0

    async def _occurs(self) -> bool:
        return any(schedule.next_run for schedule in await self._app.queue(QUEUE).list_repeatables())


async def kill_at_each(rounds: Rounds, moments: list[Moment]) -> None:
    scene = rounds.scene
    for number, moment in enumerate(moments):
        await rounds.record(number)
        process = rounds.start(moment)
        pid = process.pid
        assert pid is not None
        code = await ended(process)
        scene.kills.append(Kill(process=pid, elapsed=elapsed()))
        assert code == -signal.SIGKILL, f"actors that were to be killed at {moment} ended with {code}"
    await rounds.drain(until={"Jobs.published", "Workers.declare_dead", "Jobs.take_overtaken"})

    finals = await scene.finals()
    verdict = check(
        Evidence(
            submitted=frozenset(rounds.wanted),
            accepted=frozenset(rounds.wanted),
            finals={job_id: str(job.state) for job_id, job in finals.items()},
            ledger=ledger.read(scene.ledger),
            kills=scene.kills,
            leases_lost=leases_lost(finals.values()),
        )
    )
    repeats = Counter(run.job for run in verdict.repeated)
    print(f"{len(moments)} moments: {verdict}")
    assert verdict.sound, describe(verdict)
    assert sorted(finals) == sorted(rounds.wanted)
    assert {job.state for job in finals.values()} == {State.COMPLETED}
    assert [job_id for job_id, often in repeats.items() if often > finals[job_id].stalled] == []
    assert await scene.audit() == []


async def play(folder: Path, moments: list[Moment], *, seed: int, store: str, broker: str) -> None:
    FORKS.set_forkserver_preload(PRELOADED)
    settings = {**SETTINGS, **LEASE}
    async with Scene(
        folder, seed=seed, store=store, broker=broker, shares_store=True, shares_broker=True, settings=settings
    ) as scene:
        async with Callboard(broker=broker, store=store, namespace=scene.namespace) as app:
            for task in (stepping.work, stepping.work_in_thread):
                app.task(name=task.name, queue=QUEUE)(task.function)
            offers_standing = StandingClaims in app.connections.store.capabilities
            rounds = Rounds(scene, app, folder)
            await rounds.record(len(moments))
            await rounds.drain(until=set())
            await kill_at_each(rounds, moments)
        taken = {*STEPS, *(STANDING if offers_standing else ())}
        assert rounds.steps().keys() - AT_TIMES == taken, "a step at which none is killed, or one too many"


@pytest.mark.slow
async def test_actors_killed_at_a_decisive_step_lose_no_job_and_repeat_none_without_a_lost_lease(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    moments = [Moment(step, "after") for step in DECISIVE]
    await play(tmp_path, moments, seed=seed, store=redis_url, broker=amqp_url)


@pytest.mark.soak
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_so_it_is_at_every_step(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    steps = [*STEPS, *(STANDING if given == "redis_url" else ())]
    moments = [Moment(step, when) for step in steps for when in ("before", "after")]
    await play(tmp_path, moments, seed=seed, store=request.getfixturevalue(given), broker=amqp_url)
