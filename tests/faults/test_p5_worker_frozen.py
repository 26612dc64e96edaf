"""P5: a worker is stopped (SIGSTOP) past its lease in the middle of its work, and continued.

Injects: SIGSTOP of one of two workers while the ledger shows a handler under way in it and the store has it run jobs,
for 1.5 leases or more and until recovery has given those jobs back, then SIGCONT. Bites: each stop hit a job, which the
other worker ran again, so the end of the first run has to be refused.
Passes: every accepted job completed; the ends that were refused are those of the runs that were repeated, each of them
and no others; the zombie goes on under a new boot id, learnt soon after SIGCONT (a second, where the machine has little
else to do), and runs jobs under it; the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest

from faults import ledger
from faults.checker import Pause, Verdict
from faults.fleet import LEASE_SECONDS, Member, actor
from faults.scene import CONNECTION_LOST, LOOK_SECONDS, UP_SECONDS, Scene, elapsed
from faults.storm import Tail
from faults.workload import APP, QUEUES

RATE = 60.0
RENEWAL_SECONDS = 1.0  # from SIGCONT to a new boot id
BUSY_SECONDS = 10.0  # the same, where a test runs beside others
SOAK_FREEZES = 30
SETTLE_SECONDS = 60.0


@pytest.mark.slow
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_what_a_frozen_worker_ran_is_run_again_and_its_own_ends_are_refused(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    renewals = await play(tmp_path, seed, request.getfixturevalue(given), amqp_url, freezes=2, longest=2.0)
    assert max(renewals) <= BUSY_SECONDS


@pytest.mark.soak
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_so_it_is_thirty_times_over_and_each_renews_within_a_second(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    renewals = await play(tmp_path, seed, request.getfixturevalue(given), amqp_url, freezes=SOAK_FREEZES, longest=5.0)
    assert median(renewals) <= RENEWAL_SECONDS
    assert max(renewals) <= BUSY_SECONDS


async def play(folder: Path, seed: int, store: str, broker: str, *, freezes: int, longest: float) -> list[float]:
    """Freeze the workers in turn, for up to `longest` leases; the seconds after which each went on as another."""
    async with Scene(
        folder,
        seed=seed,
        store=store,
        broker=broker,
        shares_store=True,
        shares_broker=True,
        settle_seconds=SETTLE_SECONDS,
    ) as scene:
        for number in (1, 2):
            scene.fleet.start(f"worker-{number}", actor("worker", app=APP, queues=QUEUES))
        scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", "delayed-scanner", app=APP))
        scene.start_producers(rate=RATE)
        await scene.up()
        tail, renewals = Tail(scene), []
        for number in range(freezes):
            leases = scene.random.uniform(1.5, longest)
            renewals.append(await freeze(scene, tail, scene.workers[number % 2], leases * LEASE_SECONDS))
            await scene.note_finals()
        await scene.settle()

        verdict = await scene.judge(CONNECTION_LOST)
        refused = scene.refused()
        print(
            f"{freezes} freezes, {len(refused)} late ends refused, {len(verdict.repeated)} runs repeated; "
            f"SIGCONT to a new boot id {min(renewals):.2f} to {max(renewals):.2f} s"
        )
        assert len(refused) >= freezes
        assert sorted(refused) == sorted(set(refused)), "one run's end was refused twice"
        assert set(refused) - failed(scene) == taken_over(scene, verdict) - failed(scene)
        return renewals


async def freeze(scene: Scene, tail: Tail, worker: Member, seconds: float) -> float:
    """Stop it while it runs something, until that was given to another; the seconds it then took to learn of it."""
    since = await stop_at_work(scene, tail, worker)
    boots = tail.boots(worker.pid)
    told = renewed(worker)
    await asyncio.sleep(seconds)
    await given_back(scene, worker)
    worker.signal(signal.SIGCONT)
    continued = elapsed()
    scene.pauses.append(Pause(process=worker.pid, since=since, until=continued))
    await scene.until(lambda: renewed(worker) > told, f"{worker.name} goes on as another", UP_SECONDS)
    took = elapsed() - continued
    await scene.until(
        lambda: tail.boots(worker.pid) > boots,
        f"{worker.name} runs jobs under its new boot id",
        UP_SECONDS,
    )
    return took


async def stop_at_work(scene: Scene, tail: Tail, worker: Member) -> float:
    """SIGSTOP when the store and the ledger say that it runs something; when that was."""
    while True:
        await scene.until(lambda: tail.running(worker.pid) > 0, f"{worker.name} runs a job", UP_SECONDS)
        since = elapsed()
        worker.signal(signal.SIGSTOP)
        if await scene.held(worker.pid) and tail.running(worker.pid):
            return since
        worker.signal(signal.SIGCONT)
        scene.pauses.append(Pause(process=worker.pid, since=since, until=elapsed()))


async def given_back(scene: Scene, worker: Member) -> None:
    """Wait until recovery has taken from it what it held."""
    async with asyncio.timeout(UP_SECONDS):
        while await scene.held(worker.pid):
            await asyncio.sleep(LOOK_SECONDS)


def renewed(worker: Member) -> int:
    """How often it has told that it goes on under another boot id."""
    return worker.output().count("was declared dead with")


def failed(scene: Scene) -> set[tuple[str, int]]:
    """(job, dispatch) of the runs that raised: the run after such a one is a retry, whatever became of its end."""
    entries = ledger.read(scene.ledger)
    return {(entry.run.job, entry.run.dispatch) for entry in entries if entry.event is ledger.Event.FAILED}


def taken_over(scene: Scene, verdict: Verdict) -> set[tuple[str, int]]:
    """(job, dispatch) of the run before each repeated one."""
    dispatches: defaultdict[str, list[int]] = defaultdict(list)
    for entry in scene.started():
        dispatches[entry.run.job].append(entry.run.dispatch)
    return {(run.job, max(one for one in dispatches[run.job] if one < run.dispatch)) for run in verdict.repeated}
