"""A producer of the standard load, as a process of its own: `python -m faults.producer --name a --seed 1 ...`.

Each lane sends one job after the other, at a steady pace; a job that is not confirmed is sent again under the same id
until it is. What was submitted and what was accepted goes to a journal, one `write` a line, before and after the call:

    submitted <id> <ms before which it must not start>
    uncertain <id> <CLOCK_BOOTTIME of the answer>
    accepted <id> <CLOCK_BOOTTIME of the answer>

A part of them, where that is asked for, is handed to intake, as any producer may that knows AMQP alone: it is accepted
once the broker has it.

SIGTERM ends it in order: what was submitted is sent until it is accepted.

With `--booted` (faults.skew.TrueTime) it knows the true time by what its own wall clock has no part in: due times are
then moments of that, as a user gives them, while everything else goes by its clock.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

from msgspec import Struct

from callboard import EnqueueUncertain
from callboard.brokers.message import Message, Receipt
from faults.skew import TrueTime
from faults.workload import Plan, app, plan, work, work_in_thread

LANES = 8
AGAIN_SECONDS = 0.1
CONFIRM_SECONDS = 2.0


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
    def __init__(
        self,
        *,
        name: str,
        seed: int,
        rate: float,
        limit: int,
        submitted: float,
        journal: Journal,
        plan: Callable[[Random], Plan] = plan,
        now: Callable[[], int] = app.clock.now,
    ) -> None:
        self._name = name
        self._random = Random(f"{seed} {name}")
        self._pause = LANES / rate
        self._numbers: Iterator[int] = iter(range(limit)) if limit else count()
        self._submitted = submitted
        self._journal = journal
        self._plan = plan
        self._now = now
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
        planned = self._plan(self._random)
        submits = self._random.random() < self._submitted
        run_at = self._now() + planned.delay
        self._journal.write("submitted", job, run_at if planned.delay else 0)
        while True:
            try:
                await (self._submit(job, planned, run_at) if submits else self._enqueue(job, planned, run_at))
            except EnqueueUncertain:
                self._journal.write("uncertain", job, app.clock.elapsed())
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self._journal.write("accepted", job, app.clock.elapsed())
                return

    async def _enqueue(self, job: str, planned: Plan, run_at: int) -> None:
        call = (work_in_thread if planned.in_thread else work).options(
            queue=planned.queue, job_id=job, run_at=run_at / 1000 if planned.delay else None
        )
        await call.enqueue(planned.milliseconds, planned.fails)

    async def _submit(self, job: str, planned: Plan, run_at: int) -> None:
        """EnqueueUncertain: the broker has not confirmed it."""
        submission = {
            "task": (work_in_thread if planned.in_thread else work).name,
            "args": [planned.milliseconds, planned.fails],
            "id": job,
            **({"run_at": run_at / 1000} if planned.delay else {}),
        }
        body = json.dumps(submission).encode()
        message = Message(exchange=app.connections.names.submit, routing_key=planned.queue, body=body)
        (receipt,) = await app.connections.broker.publish([message], timeout=CONFIRM_SECONDS)
        if receipt is not Receipt.CONFIRMED:
            raise EnqueueUncertain((job,), f"the broker's answer: {receipt}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True, help="what its job ids begin with")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="jobs a second")
    parser.add_argument("--limit", type=int, default=0, help="how many jobs; 0: until SIGTERM")
    parser.add_argument("--submitted", type=float, default=0, help="the part of them that goes by intake")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--delayed", type=float, default=0.1, help="the part of them that is delayed")
    parser.add_argument("--failing", type=float, default=0.05, help="the part of them that fails at first")
    parser.add_argument("--booted", type=int, help="when the machine was booted, in true time: ns since the epoch")
    given = parser.parse_args()

    async def run() -> None:
        journal = Journal(given.journal)
        await Producer(
            name=given.name,
            seed=given.seed,
            rate=given.rate,
            limit=given.limit,
            submitted=given.submitted,
            journal=journal,
            plan=functools.partial(plan, delayed=given.delayed, failing=given.failing),
            now=app.clock.now if given.booted is None else TrueTime(given.booted).now,
        ).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
