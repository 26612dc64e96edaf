"""Intake is killed (-9) once at every step that it takes, before and after.

Injects: for each step eleven submissions with ids arrive, two of them twice, one a bundle with a bad job in it, each of
which wants a reply; and the intake that takes them in kills itself at that step: before the call, or after its answer.
Bites: each of these processes has to end by that very signal, and what an intake does without faults, which is written
down, has to be these steps and no others.
Passes: each job is there once and ran once; each bad one is in `callboard.dead`; no submission is left; the audit is
clean.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from callboard.metadata.job import State
from faults import ledger, stepping
from faults.door import Door, good
from faults.stepping import ACK, Moment, ended

PATIENCE_SECONDS = 60.0
JOBS = 8  # in each round, besides the bundle's
# Every step that the intake takes with such submissions, and those that it takes only where an earlier one came again.
STEPS = [
    *("broker.declare", "broker.consume", "QueueControl.queues", "QueueControl.register", "Jobs.enqueue"),
    *("publish jobs", "publish dead", "publish reply", ACK, "Jobs.published"),
]
AGAIN = {"Inspection.get"}
# By these, a process is there at once.
PRELOADED = [f"callboard.{name}" for name in ("runtime.testing", "brokers.rabbitmq", "metadata.redis", "actors.intake")]
FORKS = multiprocessing.get_context("forkserver")


def submissions(number: int) -> tuple[list[bytes], list[str]]:
    """The bodies of one round, and the ids of the jobs that are to come of them."""
    ids = [f"round-{number}-{index}" for index in range(JOBS)]
    bundle = [json.loads(good(f"round-{number}-bundle-{index}")) for index in range(2)]
    bad = {"task": "work", "id": f"bad-{number}", "priority": 0}
    bodies = [good(name) for name in ids + ids[:2]] + [json.dumps([bundle[0], bad, bundle[1]]).encode()]
    return bodies, ids + [str(job["id"]) for job in bundle]


@pytest.mark.slow
async def test_an_intake_killed_at_any_step_leaves_each_job_there_once_and_run_once(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    FORKS.set_forkserver_preload(PRELOADED)
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url) as door:
        door.start("worker", "delayed-scanner", "stalled-recovery", intakes=0)
        await door.up()
        wanted: list[str] = []
        trace = tmp_path / "trace"

        async def submit(number: int) -> None:
            bodies, ids = submissions(number)
            wanted.extend(ids)
            await door.submit(bodies, reply_to="amq.gen-nobody", correlation_id="c")

        def steps() -> Counter[str]:
            return Counter(trace.read_text().splitlines() if trace.exists() else ())

        async def drain() -> None:
            """An intake that nothing happens to, until all is taken in."""
            before = steps()["broker.consume"]
            process = start(door, None, trace)
            await door.scene.until(lambda: steps()["broker.consume"] > before, "an intake takes in", 60)
            await door.settled(ids=wanted, seconds=PATIENCE_SECONDS)
            await door.scene.until(lambda: "Jobs.published" in steps(), "what was sent is noted", 60)
            process.terminate()
            assert await ended(process) == 0

        await submit(0)
        await drain()
        moments = [Moment(step, when) for step in STEPS for when in ("before", "after")]
        moments += [Moment(ACK, when, JOBS // 2) for when in ("before", "after")]

        for number, moment in enumerate(moments, 1):
            await submit(number)
            code = await ended(start(door, moment, None))
            assert code == -signal.SIGKILL, f"an intake that was to be killed at {moment} ended with {code}"
        await drain()

        jobs, letters = await door.settled(ids=wanted, letters=len(moments) + 1, seconds=PATIENCE_SECONDS)
        assert steps().keys() - AGAIN == set(STEPS), "a step of the intake at which it is not killed, or one too many"
        runs = Counter(e.run.job for e in ledger.read(door.scene.ledger) if e.event is ledger.Event.START)
        aside = Counter(json.loads(letter.body)["id"] for letter in letters)
        print(f"killed at {', '.join(f'{one.when} {one.step} {one.nth}' for one in moments)}")
        print(f"{len(wanted)} jobs, {sum(runs.values())} runs, {len(aside)} put aside in {sum(aside.values())} letters")
        assert sorted(jobs) == sorted(wanted)
        assert {job.state for job in jobs.values()} == {State.COMPLETED}
        assert runs == Counter(wanted)
        assert aside.keys() == {f"bad-{number}" for number in range(len(moments) + 1)}
        assert await door.waiting() == 0
        assert await door.scene.audit() == []
        assert door.fleet.complaints() == []


def start(door: Door, moment: Moment | None, trace: Path | None) -> ForkServerProcess:
    process = FORKS.Process(target=stepping.run, args=(door.fleet.deployed, ["intake"], moment, trace), daemon=True)
    process.start()
    return process
