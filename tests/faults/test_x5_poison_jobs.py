"""X5: jobs that harm whoever runs them, submitted between good ones.

Injects: jobs that always fail, kill their worker's process, never end, return 100 MB or what has no JSON form, raise
with a message of 10 MB, with a hostile `__str__` and `__repr__`, or SystemExit. A worker that is gone is started again,
as a supervisor of processes would. The killer comes when the others are over, and takes 0.2 s: jobs that are claimed
with a killer and do not end before it strikes share its fate, each time, and are given up with it. Bites: it ends a
worker's process at least three times.
Passes: each poison job is final after a bounded number of runs, with a short error that says why; every good job is
completed, and ran more than once only where a worker was killed; the other actors were not restarted.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from callboard.metadata.job import State
from faults.door import Door, good, unfinished
from faults.fleet import CONNECTED

APP = "faults.poison_tasks:app"
GOOD = 50
MAX_STALLED = 2
MAX_ERROR = 32 * 1024  # bytes of a stored error, its traceback among them

# task: runs, part of its error
POISON = {
    "fails": (3, "always"),
    "kills": (MAX_STALLED + 1, "its worker died"),
    "never-ends": (1, "0.5"),
    "returns-much": (1, "104857602"),
    "returns-a-stranger": (1, "JSON"),
    "says-much": (1, "yyyy"),
    "is-hostile": (1, "Hostile"),
    "is-hostile-in-a-thread": (1, "Hostile"),
    "exits": (1, "SystemExit"),
}


@pytest.mark.slow
async def test_a_poison_job_ends_with_its_reason_and_takes_no_other_with_it(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    settings = {"CALLBOARD_MAX_STALLED": str(MAX_STALLED)}
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url, app=APP, settings=settings) as door:
        door.start()
        await door.up()
        worker = door.fleet["worker-1"]
        goods: list[str] = []
        deaths = 0
        for tasks in ([task for task in POISON if task != "kills"], ["kills"]):
            bodies: list[bytes] = []
            for task in tasks:
                ids = [f"good-{task}-{number}" for number in range(GOOD)]
                goods += ids
                bodies += [good(name) for name in ids]
                bodies.append(json.dumps({"task": task, "id": f"poison-{task}"}).encode())
            await door.submit(bodies)
            wanted = [*goods, *(f"poison-{task}" for task in tasks)]
            settling = asyncio.create_task(door.settled(ids=wanted, seconds=90))
            while not settling.done():
                if not worker.running:
                    deaths += 1
                    worker.kill()  # what is left of its group
                    worker.start()
                    await door.scene.until(lambda: worker.said(CONNECTED) or not worker.running, "it is connected", 30)
                await asyncio.sleep(0.05)
            jobs, letters = await settling

        print(f"{deaths} workers killed from within")
        assert deaths >= MAX_STALLED + 1
        assert unfinished(jobs, goods) == []
        assert [job for job in jobs.values() if job.id in goods and job.attempts > 1 + job.stalled] == []
        for task, (runs, said) in POISON.items():
            job = jobs[f"poison-{task}"]
            error = job.error or b""
            print(f"{task}: {job.state}, {job.attempts} runs, {len(error)} bytes: {error[:120]!r}")
            assert (job.state, job.attempts) == (State.FAILED, runs), task
            assert said in msgspec.json.decode(error)["message"] + msgspec.json.decode(error)["type"], task
            assert len(error) <= MAX_ERROR, task
        assert letters == []
        assert await door.scene.audit() == []
        assert all(one.lives == 1 and one.running for one in door.fleet if one is not worker)
