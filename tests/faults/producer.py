"""A producer of the standard load, as a process of its own: `python -m faults.producer --name a --seed 1 ...`.

Each lane sends one job after the other, at a steady pace; a job that is not confirmed is sent again under the same id
until it is. What was submitted and what was accepted goes to a journal, one `write` a line, before and after the call:

    submitted <id> <ms before which it must not start>
    uncertain <id> <CLOCK_BOOTTIME of the answer>
    accepted <id> <CLOCK_BOOTTIME of the answer>

SIGTERM ends it in order: what was submitted is sent until it is accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

from msgspec import Struct

from callboard import EnqueueUncertain
from faults.workload import app, plan, work, work_in_thread

LANES = 8
AGAIN_SECONDS = 0.1


class Line(Struct, frozen=True):
    """A line of a journal. `value`: ms since the Unix epoch for `submitted`, seconds of CLOCK_BOOTTIME else."""

    word: str
    job: str
    value: float


class Journal:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, word: str, job: str, value: float) -> None:
        os.write(self._file, f"{word} {job} {value!r}\n".encode())


def read_journal(path: Path) -> list[Line]:
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [Line(word, job, float(value)) for word, job, value in map(str.split, lines)]


class Producer:
    def __init__(self, *, name: str, seed: int, rate: float, limit: int, journal: Journal) -> None:
        self._name = name
        self._random = Random(f"{seed} {name}")
        self._pause = LANES / rate
        self._numbers: Iterator[int] = iter(range(limit)) if limit else count()
        self._journal = journal
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        async with app, asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(self._lane())

    async def _lane(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._random.uniform(0, self._pause)
        for number in self._numbers:
            try:
                async with asyncio.timeout_at(due):
                    await self._stopping.wait()
            except TimeoutError:
                pass
            if self._stopping.is_set():
                return
            # Made up for after a wait, but for no more than a second: outages shall not end in floods.
            due = max(due + self._pause, loop.time() - 1)
            await self._send(f"{self._name}-{number:06}")

    async def _send(self, job: str) -> None:
        planned = plan(self._random)
        run_at = app.clock.now() + planned.delay
        call = (work_in_thread if planned.in_thread else work).options(
            queue=planned.queue, job_id=job, run_at=run_at / 1000 if planned.delay else None
        )
        self._journal.write("submitted", job, run_at if planned.delay else 0)
        while True:
            try:
                await call.enqueue(planned.milliseconds, planned.fails)
            except EnqueueUncertain:
                self._journal.write("uncertain", job, app.clock.elapsed())
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self._journal.write("accepted", job, app.clock.elapsed())
                return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True, help="what its job ids begin with")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="jobs a second")
    parser.add_argument("--limit", type=int, default=0, help="how many jobs; 0: until SIGTERM")
    parser.add_argument("--journal", type=Path, required=True)
    given = parser.parse_args()

    async def run() -> None:
        journal = Journal(given.journal)
        await Producer(name=given.name, seed=given.seed, rate=given.rate, limit=given.limit, journal=journal).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
