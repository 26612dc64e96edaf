"""Intake is killed (-9) at random while submissions with ids arrive, a fifth of them twice: 1,000, or 5,000 in a soak.
At which steps of the code it may die is enumerated in test_intake_steps.py.

Injects: SIGKILL of one of the intakes, at a random moment soon after it has begun to take in, started again at once.
Bites: a kill counts if submissions were left then, and three have to.
Passes: as many jobs as ids, each run once; no submission is left, none was put aside.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from faults import ledger
from faults.door import TAKES_IN, Door, good, unfinished

WITHIN_SECONDS = 0.03


@pytest.mark.slow
async def test_a_killed_intake_loses_no_submission_and_makes_no_second_job(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url) as door:
        await kill_while_taking_in(door, count=4000, intakes=1)


@pytest.mark.soak
async def test_so_it_is_with_five_thousand_and_two_intakes(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url) as door:
        await kill_while_taking_in(door, count=5000, intakes=2)


async def kill_while_taking_in(door: Door, *, count: int, intakes: int) -> None:
    random = door.scene.random
    ids = [f"job-{number:05}" for number in range(count)]
    bodies = [good(name) for name in ids + ids[: count // 5]]
    random.shuffle(bodies)
    await door.submit(bodies)
    door.start(intakes=intakes)

    kills = hits = 0
    members = door.fleet.named("intake")
    while await door.waiting():
        intake = members[kills % intakes]
        await door.scene.until(lambda one=intake: one.said(TAKES_IN), "an intake takes in", 60)
        await asyncio.sleep(random.uniform(0, WITHIN_SECONDS))
        await asyncio.to_thread(intake.kill)
        kills += 1
        hits += await door.waiting() > 0
        intake.start()

    jobs, letters = await door.settled(final=count, letters=0, seconds=120)
    runs = Counter(e.run.job for e in ledger.read(door.scene.ledger) if e.event is ledger.Event.START)
    print(f"{kills} kills, {hits} with submissions left; {len(jobs)} jobs, {sum(runs.values())} runs")
    assert hits >= 3
    assert len(jobs) == count
    assert unfinished(jobs, ids) == []
    assert runs == Counter(ids)
    assert letters == []
    assert await door.scene.audit() == []
    assert door.fleet.complaints() == []
