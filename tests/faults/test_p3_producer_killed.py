"""P3: a producer is killed (-9) at every await of `enqueue`: before and after each call of its store and its broker.

Injects: for each such step a process hands in jobs in every way there is (by an id of its own or not, confirmed,
delayed, in bulk), and kills itself at that step. One more dies when its ticket is confirmed and its record was never
written.
Nobody but the caller who had no yes calls again, with the same id. Bites: each process has to end by that very signal;
what a producer does without faults, which is written down, has to be these steps and no others; some of the calls that
were cut short have to have left a record.
Passes: every job that got a yes is completed, the adopted one among them, and none ran twice; the same ids handed in
once more, all of them, make no record and no run; the audit is clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.metadata.job import State
from faults import ledger
from faults.checker import Evidence, check
from faults.fleet import ENDED, SERVES, actor
from faults.producer import Line, read_journal
from faults.scene import LOOK_SECONDS, UP_SECONDS, Scene, describe, recorded, unfinished
from faults.stepped_producer import produce
from faults.stepping import QUEUE, Moment, ended
from faults.workload import APP, QUEUES
from servers import MongoServer, RedisServer

AT_A_TIME = 3
# Every step of a producer that goes through all ways, and how often it takes it.
STEPS = {
    "QueueControl.register": 1,
    "Jobs.enqueue": 6,
    "broker.declare": 1,
    "publish jobs": 5,
    "publish control": 1,
    "Jobs.published": 5,
}
MOMENTS = [
    Moment(step, when, n) for step, often in STEPS.items() for n in range(1, often + 1) for when in ("before", "after")
]
PRELOADED = [
    "callboard",
    "callboard.brokers.rabbitmq",
    "callboard.metadata.redis",
    "callboard.metadata.mongo",
    "faults.stepped_producer",
]
FORKS = multiprocessing.get_context("forkserver")


class Office:
    """Where the producers hand in, and what is known of each."""

    def __init__(self, scene: Scene, app: Callboard, folder: Path) -> None:
        self.scene = scene
        self.app = app
        self.half_done = 0
        self.trace = folder / "trace"
        self.known: list[Line] = []  # of all journals, and of who called again
        self._folder = folder
        self._places = asyncio.Semaphore(AT_A_TIME)

    async def calm(self) -> list[str]:
        """A producer that nothing happens to; the steps that it takes."""
        assert await ended(self._start("calm", None)) == 0
        self._read("calm")
        return self.trace.read_text().splitlines()

    async def killed(self, name: str, moment: Moment) -> None:
        """One that dies at that moment. Whoever had no yes hands the job in again."""
        async with self._places:
            code = await ended(self._start(name, moment))
            assert code == -signal.SIGKILL, f"a producer that was to be killed at {moment} ended with {code}"
            for line in self._read(name):
                self.half_done += (await self.scene.find(QUEUE, [line.job]))[0] is not None
                await self.hand_in(line)

    async def killed_without_a_record(self) -> str:
        """One whose ticket the broker has, and whose record never reached the store; the job."""
        assert await ended(self._start("held", Moment("publish jobs", "after"), held="Jobs.enqueue")) == -signal.SIGKILL
        (line,) = self._read("held")
        return line.job

    async def hand_in(self, line: Line) -> None:
        """The same call again."""
        run_at = line.value / 1000 if line.value else None
        accepted = await self.app.queue(QUEUE).add("work", [0, False], job_id=line.job, run_at=run_at)
        self.known.append(Line("accepted", accepted, 0))

    @property
    def submitted(self) -> dict[str, Line]:
        return {line.job: line for line in self.known if line.word == "submitted"}

    @property
    def accepted(self) -> frozenset[str]:
        return frozenset(line.job for line in self.known if line.word == "accepted")

    def _start(self, name: str, moment: Moment | None, held: str | None = None) -> ForkServerProcess:
        trace = self.trace if moment is None else None
        given = (self.scene.fleet.deployed, name, self._journal(name), moment, trace, held)
        process = FORKS.Process(target=produce, args=given, daemon=True)
        process.start()
        return process

    def _read(self, name: str) -> list[Line]:
        """The calls that had no yes."""
        lines = read_journal(self._journal(name))
        self.known += lines
        yes = {line.job for line in lines if line.word == "accepted"}
        return [line for line in lines if line.word == "submitted" and line.job not in yes]

    def _journal(self, name: str) -> Path:
        return self._folder / f"{name}.journal"


@pytest.mark.slow
async def test_a_producer_killed_at_any_await_loses_nothing_that_got_a_yes_and_may_be_called_again(
    tmp_path: Path, seed: int, durable_store: RedisServer | MongoServer, amqp_url: str
) -> None:
    FORKS.set_forkserver_preload(PRELOADED)
    async with (
        Scene(tmp_path, seed=seed, store=durable_store.url, broker=amqp_url, shares_broker=True) as scene,
        Callboard(broker=amqp_url, store=durable_store.url, namespace=scene.namespace) as app,
    ):
        office = Office(scene, app, tmp_path)
        assert Counter(await office.calm()) == STEPS, "a step of a producer at which none is killed, or one too many"
        adopted = await office.killed_without_a_record()
        await asyncio.gather(*(office.killed(f"killed-{n:02}", moment) for n, moment in enumerate(MOMENTS)))
        # Only now: a job that is handed over to an idle worker spares its producer half of its steps.
        everybody = actor("worker", "delayed-scanner", "stalled-recovery", app=APP, queues=QUEUES)
        worker = scene.fleet.start("worker-1", everybody)
        await scene.until(lambda: worker.said(SERVES), "a worker serves", UP_SECONDS)
        await all_final(scene, adopted)

        submitted, finals = office.submitted, await scene.finals()
        verdict = check(
            Evidence(
                submitted=frozenset(submitted),
                accepted=office.accepted | {adopted},
                finals={job_id: str(job.state) for job_id, job in finals.items()},
                ledger=ledger.read(scene.ledger),
                due={job_id: int(line.value) for job_id, line in submitted.items()},
            )
        )
        print(
            f"{len(MOMENTS) + 1} producers killed; {office.half_done} calls without a yes had made a record: {verdict}"
        )
        assert verdict.sound, describe(verdict)
        assert verdict.repeated == ()
        assert {job.state for job in finals.values()} == {State.COMPLETED}
        assert office.half_done > 0

        for line in submitted.values():
            await office.hand_in(line)
        assert office.accepted == submitted.keys() == finals.keys()
        assert recorded((await scene.counts())[QUEUE]) == len(submitted)
        await scene.stop()
        assert worker.said(ENDED)
        assert Counter(entry.run.job for entry in scene.started()) == Counter(submitted.keys())
        assert await scene.audit() == []
        assert {depth.ready for depth in (await scene.depths()).values() if depth is not None} == {0}
        assert scene.fleet.complaints() == []


async def all_final(scene: Scene, adopted: str) -> None:
    async with asyncio.timeout(UP_SECONDS):
        while unfinished(await scene.counts()) or (await scene.find(QUEUE, [adopted]))[0] is None:
            await asyncio.sleep(LOOK_SECONDS)
