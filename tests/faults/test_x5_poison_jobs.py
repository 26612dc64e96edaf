"""X5: jobs that harm whoever runs them, submitted between good ones.

Injects: jobs that always fail, kill their worker's process, never end, return 100 MB or what has no JSON form, raise
with a message of 10 MB, with a hostile `__str__` and `__repr__`, or SystemExit; all at once, each among good jobs of
150 ms, and of 2 ms, which are claimed ahead. A worker that is gone is started again, as a supervisor of processes
would. Bites: the killer ends a worker's process three times, and takes others with it.
Passes: each poison job is final after a bounded number of runs, with a short error that says why; every good job is
completed, whatever it ran beside, and began more than once only where a worker was killed; jobs that had not begun may
be lost with the first worker, but with the second one no more than it has slots, begun or not, and with the third none;
the killer's history names the processes that it has cost, the last of which ran nothing else; the other actors were not
restarted.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from callboard.metadata.job import State
from callboard.runtime.job_view import view
from faults.door import Door, good, unfinished
from faults.fleet import CONNECTED

APP = "faults.poison_tasks:app"
GOOD = 20  # beside each of them
SHORT = 600  # beside all of them
SLOTS = 20
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
        goods = [f"good-{task}-{number}" for task in POISON for number in range(GOOD)]
        poison = [json.dumps({"task": task, "id": f"poison-{task}"}).encode() for task in POISON]
        shorts = [f"short-{number}" for number in range(SHORT)]
        bodies = poison + [good(name, args=[150, False]) for name in goods]
        bodies += [good(name, args=[2, False]) for name in shorts]
        goods += shorts
        door.scene.random.shuffle(bodies)
        killer = next(body for body in bodies if b"poison-kills" in body)
        bodies.remove(killer)
        bodies.insert(door.scene.random.randrange(len(bodies) // 2), killer)  # good jobs are left to run beside it
        await door.submit(bodies)
        wanted = [*goods, *(f"poison-{task}" for task in POISON)]
        settling = asyncio.create_task(door.settled(ids=wanted, seconds=150))
        pids = [worker.pid]
        while not settling.done():
            if not worker.running:
                worker.kill()  # what is left of its group
                worker.start()
                pids.append(worker.pid)
                await door.scene.until(lambda: worker.said(CONNECTED) or not worker.running, "it is connected", 30)
            await asyncio.sleep(0.05)
        jobs, letters = await settling

        beside = [name for name in goods if jobs[name].stalled]
        starts = Counter(entry.run.job for entry in door.scene.started())
        began_in = {(entry.run.job, entry.run.process) for entry in door.scene.started()}
        not_begun = [name for name in beside if not any((name, pid) in began_in for pid in pids[:-1])]
        print(
            f"{len(pids) - 1} workers killed from within, {len(beside)} good jobs were claimed there, {len(not_begun)} "
            f"of them never began there, {sum(jobs[name].stalled > 1 for name in beside)} were lost twice"
        )
        assert len(pids) - 1 == MAX_STALLED + 1
        assert beside
        assert unfinished(jobs, goods) == []
        assert [name for name in goods if not 1 <= starts[name] <= 1 + jobs[name].stalled] == []
        assert len([name for name in beside if jobs[name].stalled > 1]) < SLOTS
        for task, (runs, said) in POISON.items():
            job = jobs[f"poison-{task}"]
            error = job.error or b""
            print(f"{task}: {job.state}, {job.attempts} runs, {len(error)} bytes: {error[:120]!r}")
            ran = job.attempts - (0 if task == "kills" else job.stalled)
            assert (job.state, ran) == (State.FAILED, runs), task
            assert said in msgspec.json.decode(error)["message"] + msgspec.json.decode(error)["type"], task
            assert len(error) <= MAX_ERROR, task
        losses = view(jobs["poison-kills"]).history
        assert [(loss.attempt, loss.outcome, loss.pid) for loss in losses] == [
            (number, "stalled", pid) for number, pid in enumerate(pids[:3], 1)
        ]
        assert losses[0].beside
        assert (losses[1].beside or 0) < SLOTS
        assert losses[-1].beside == 0
        assert letters == []
        assert await door.scene.audit() == []
        assert all(one.lives == 1 and one.running for one in door.fleet if one is not worker)
