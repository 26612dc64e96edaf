"""Intake is killed (-9) while 5,000 submissions with ids arrive, a thousand of them twice.

Injects: SIGKILL of one of two intakes, at a random moment within 80 ms of its having begun to take in, started again at
once. Bites: a kill counts if submissions were left then, and most have to; a broker's redelivery shows in "existing".
Passes: 5,000 jobs, each run once; no submission is left, none was put aside.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from faults import ledger
from faults.door import TAKES_IN, Door, good, unfinished

JOBS, TWICE = 5000, 1000
WITHIN_SECONDS = 0.08


@pytest.mark.slow
async def test_a_killed_intake_loses_no_submission_and_makes_no_second_job(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url) as door:
        random = door.scene.random
        ids = [f"job-{number:05}" for number in range(JOBS)]
        bodies = [good(name) for name in ids + ids[:TWICE]]
        random.shuffle(bodies)
        await door.submit(bodies)
        door.start(intakes=2)

        kills = hits = 0
        intakes = door.fleet.named("intake")
        while await door.waiting():
            intake = intakes[kills % 2]
            await door.scene.until(lambda one=intake: one.said(TAKES_IN), "an intake takes in", 30)
            await asyncio.sleep(random.uniform(0, WITHIN_SECONDS))
            await asyncio.to_thread(intake.kill)
            kills += 1
            hits += await door.waiting() > 0
            intake.start()

        jobs, letters = await door.settled(final=JOBS, letters=0, seconds=90)
        runs = Counter(e.run.job for e in ledger.read(door.scene.ledger) if e.event is ledger.Event.START)
        print(f"{kills} kills, {hits} with submissions left; {len(jobs)} jobs, {sum(runs.values())} runs")
        assert hits >= 5
        assert len(jobs) == JOBS
        assert unfinished(jobs, ids) == []
        assert runs == Counter(ids)
        assert letters == []
        assert await door.scene.audit() == []
        assert door.fleet.complaints() == []
