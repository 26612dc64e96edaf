"""K2, K4: the clock of one process is wrong.

Injects (K2): the wall clock of a worker, a producer, a scanner, a scheduler and the one recovery, one after the other:
a minute ahead, two minutes behind, ten seconds ahead and behind in turn, five times a second; in the short run a fifth
of each, as of the lease. (K4) Two workers, one an hour ahead and one an hour behind from the start, and no others.
Bites: the process has been told the wrong times; what handlers wrote shows them for workers, the records that it made
for the producer, warnings for scanner and scheduler; `callboard doctor` with such a clock says by how much it is wrong.
Passes: every accepted job and each occurrence had its run, none before its time by the true clock and none twice; no
worker was declared dead; the audit is clean.

Not promised: a delay in seconds is counted from the clock of who is given it, so the wait before a retry is longer, or
shorter, by as much as the worker's clock was wrong. So there are no retries in K4, where that is an hour.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from faults.clocks import FULL, NOTICED, SCALED, ClockScene, Wrong
from faults.scene import UP_SECONDS
from faults.skew import Skew

SHORT_SECONDS = 1
FULL_SECONDS = 30
HOUR = 3_600_000
EACH = 60  # runs of a worker whose clock is wrong
TOLERANCE = 1000  # ms
NAMED = ("delayed-scanner", "repeatable-scheduler")


def shows(gaps: Sequence[int], wrongs: Sequence[Wrong]) -> list[int]:
    """How many of these were about as large as each of the offsets."""
    return [sum(abs(gap - offset) < TOLERANCE for gap in gaps) for wrong in wrongs for offset in wrong.offsets]


async def by_its_clock(scene: ClockScene, producer: str) -> list[int]:
    """By how many ms the clock of that producer was ahead when it made each of its jobs."""
    made = {job.id: job.created_at for job in (await scene.finals()).values()}
    accepted = {line.job: scene.time.at(line.value) for line in scene.journals("accepted")}
    return [made[job] - moment for job, moment in accepted.items() if job.startswith(producer)]


async def one_at_a_time(scene: ClockScene, wrongs: Sequence[Wrong], *, seconds: int) -> None:
    worker = scene.start("worker-1", "worker")
    scene.start("worker-2", "worker")
    single = [scene.start(f"{kind}-1", kind) for kind in (*NAMED, "stalled-recovery")]
    scene.start("others-2", *NAMED)
    producer, _ = scene.start_load()
    await scene.up()
    # The worker's retries come as late as its clock is ahead: first, so that nobody has to wait for them in the end.
    skews = [worker, producer, *single]
    await scene.schedule(seconds=seconds * len(wrongs) * len(skews))
    for skew in skews:
        await scene.note_finals()
        for wrong in wrongs:
            await wrong.befall(skew, seconds=seconds)
        skew.set(0)
    process = scene.fleet["worker-1"].pid
    await scene.verdict()
    runs, jobs = shows([*scene.gaps(process)], wrongs), shows(await by_its_clock(scene, "producer-1"), wrongs)
    offsets = [offset for wrong in wrongs for offset in wrong.offsets]
    print(f"at {offsets} ms: {runs} runs by the worker, {jobs} jobs by the producer")
    assert all(runs)
    assert all(jobs)
    assert all(scene.fleet.lines(f"{kind}-1", NOTICED) for kind in NAMED)


@pytest.mark.parametrize(
    ("wrongs", "seconds"),
    [
        pytest.param(SCALED, SHORT_SECONDS, marks=pytest.mark.slow, id="short"),
        pytest.param(FULL, FULL_SECONDS, marks=pytest.mark.soak, id="half a minute each"),
    ],
)
async def test_no_clock_of_an_actor_starts_anything_early_or_twice_or_declares_anybody_dead(
    tmp_path: Path,
    seed: int,
    skew_library: Path,
    redis_url: str,
    amqp_url: str,
    wrongs: Sequence[Wrong],
    seconds: int,
) -> None:
    async with ClockScene(
        tmp_path,
        seed=seed,
        store=redis_url,
        broker=amqp_url,
        library=skew_library,
        shares_store=True,
        shares_broker=True,
    ) as scene:
        await one_at_a_time(scene, wrongs, seconds=seconds)


async def doctor(scene: ClockScene, skew: Skew) -> str:
    """What it says of the clocks, where its own is that one."""
    deployed = scene.fleet.deployed
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard", "doctor", "--json"),
        *("--broker", deployed.broker, "--store", deployed.store, "--namespace", deployed.namespace),
        env={**os.environ, **skew.environment},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(UP_SECONDS):
        said, _ = await process.communicate()
    (clock,) = [one for one in json.loads(said)["findings"] if (one["about"], one["check"]) == ("store", "clock")]
    print(clock)
    assert clock["level"] == "error"
    return str(clock["message"])


@pytest.mark.slow
async def test_workers_an_hour_ahead_and_behind_start_nothing_early_and_are_told_of_their_clocks(
    tmp_path: Path, seed: int, skew_library: Path, redis_url: str, amqp_url: str
) -> None:
    async with ClockScene(
        tmp_path,
        seed=seed,
        store=redis_url,
        broker=amqp_url,
        library=skew_library,
        shares_store=True,
        shares_broker=True,
    ) as scene:
        ahead = scene.start("worker-1", "worker", milliseconds=HOUR)
        behind = scene.start("worker-2", "worker", milliseconds=-HOUR)
        scene.start("others-1", *NAMED, "stalled-recovery")
        scene.start_load(failing=0)
        await scene.up()
        await scene.schedule(seconds=3)
        assert re.search(r"the store's clock is 3(59\d|60\d)\.\d+ s behind this machine's", await doctor(scene, ahead))
        assert re.search(
            r"the store's clock is 3(59\d|60\d)\.\d+ s ahead of this machine's", await doctor(scene, behind)
        )
        workers = {scene.fleet["worker-1"].pid: HOUR, scene.fleet["worker-2"].pid: -HOUR}
        await scene.until(
            lambda: all(len([*scene.gaps(process)]) >= EACH for process in workers), "both workers run jobs", UP_SECONDS
        )
        await scene.verdict()
        for process, offset in workers.items():
            assert all(abs(gap - offset) < HOUR / 10 for gap in scene.gaps(process))
