"""P9: a fleet of this version beside a newer one, as in the middle of a rolling upgrade.

Injects: a copy of the package in which the wire version is 2, and which stamps it on every message and every payload,
takes in half of the submissions, which this version's scanner sends again whenever they are due; and a message that
keeps nothing of what every version keeps. Then a worker of the copy starts, and the old one ends.
Bites: while the old worker is alone, every job of version 2 is parked by it, with the reason, and none has failed.
Passes: each job of either version ran once, those of version 2 at the new worker; the old worker was never restarted,
ran its own jobs meanwhile, and tried each of the others no more than once in ten seconds; nothing that can be read by
somebody was put aside, and what nobody can read is.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

import callboard
from callboard.metadata.job import Job, State
from faults import ledger
from faults.door import QUEUE, Door, good
from faults.fleet import SERVES, actor
from faults.workload import APP, QUEUES

EACH = 20
PARK_SECONDS = 10.0
PATIENCE_SECONDS = 90.0
PACKED = b'{"v":2,"jobs":"packed"}'
LEFT_OUT = shutil.ignore_patterns("tests", "compose", "build", "dist", "*.egg-info", ".*", "__pycache__")


def newer_package(folder: Path) -> str:
    """A folder for PYTHONPATH in which `callboard` is of wire version 2."""
    package = folder / "newer" / "callboard"
    shutil.copytree(Path(callboard.__file__).parent, package, ignore=LEFT_OUT)
    wire = package / "runtime" / "wire.py"
    text = wire.read_text()
    for old, new in (
        ("VERSION = 1\n", "VERSION = 2\n"),
        ("return _encoder.encode(body)\n", "return _encoder.encode(msgspec.structs.replace(body, v=2))\n"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    wire.write_text(text)
    return str(package.parent)


async def jobs_of(door: Door, ids: list[str]) -> dict[str, Job]:
    return {job.id: job for job in await door.scene.find(QUEUE, ids) if job is not None}


@pytest.mark.slow
async def test_what_a_newer_version_sent_waits_for_a_worker_that_reads_it(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    newer = newer_package(tmp_path)
    old, new = ([f"v{version}-{number}" for number in range(EACH)] for version in (1, 2))
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url) as door:
        fleet, until = door.fleet, door.scene.until
        door.start("worker", "delayed-scanner", "stalled-recovery", intakes=0)
        fleet.start("intake-2", ["-m", "callboard", "run", "intake"], PYTHONPATH=newer)
        await door.up()
        worker = fleet["worker-1"]
        began = time.monotonic()
        await door.submit([good(name) for name in new])
        await door.submit([PACKED], exchange=door.names.jobs)
        deadline = began + PATIENCE_SECONDS
        while not all((await parked(door, new)).values()):
            assert time.monotonic() < deadline, await parked(door, new)
        fleet["intake-2"].stop()
        fleet.start("intake-1", ["-m", "callboard", "run", "intake"])
        await door.submit([good(name) for name in old])
        await door.settled(ids=old, seconds=PATIENCE_SECONDS)
        await until(lambda: "goes back to it" in worker.output(), "the old worker has put back what it cannot park", 60)
        alone = time.monotonic() - began
        tried = {job.id: job.attempts for job in (await jobs_of(door, new)).values()}
        put_back = worker.output().count("goes back to it")
        letters = await door.letters()

        arguments = actor("worker", app=APP, queues=QUEUES)
        fleet.start("worker-2", arguments, PYTHONPATH=f"{newer}:{Path(__file__).parents[1]}")
        await until(lambda: fleet["worker-2"].said(SERVES), "the newer worker serves", 60)
        assert worker.running
        worker.stop()
        jobs, later_letters = await door.settled(ids=old + new, letters=1, seconds=PATIENCE_SECONDS)

        starts = Counter(e.run.job for e in ledger.read(door.scene.ledger) if e.event is ledger.Event.START)
        print(f"{alone:.1f} s alone: jobs of version 2 were tried {sorted(Counter(tried.values()).items())} times")
        most = 1 + alone / PARK_SECONDS
        assert letters == []
        assert max(tried.values()) <= most
        assert put_back <= most
        assert starts == Counter(old + new)
        assert {job.state for job in jobs.values()} == {State.COMPLETED}
        assert {json.loads(jobs[name].payload)["v"] for name in new} == {2}
        assert [letter.body for letter in later_letters] == [PACKED]
        assert worker.lives == 1
        assert fleet.complaints() == []
        assert await door.scene.audit() == []


async def parked(door: Door, ids: list[str]) -> dict[str, bool]:
    """Which of the jobs a worker has parked, for the reason that its version is newer."""
    jobs = await jobs_of(door, ids)
    return {
        name: name in jobs and any(b"reads its wire version 2, this one only 1" in one for one in jobs[name].history)
        for name in ids
    }
