"""P6: recovery is stopped (SIGSTOP) while workers live, and so is everything but them.

Injects: SIGSTOP of recovery for five leases, and for the second half of that time of scanner, scheduler and intake too,
under load; then SIGCONT. The soak stops all of them for five leases at once, several times. Bites: a job that was
recorded and not sent, one whose delay is over, one that a schedule has to make and one that was submitted wait until
SIGCONT, while every worker's counter rises and handlers start.
Passes: nobody is declared dead, so no job is run twice; every accepted job is completed; the audit clean, the broker's
queues empty.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.metadata.contract import Workers
from faults.debts import Debt, Debts
from faults.fleet import LEASE_SECONDS, actor
from faults.scene import CONNECTION_LOST, Scene
from faults.workload import APP, QUEUES

RATE = 60.0
RECOVERY = "stalled-recovery-1"
OTHERS = "others-1"
OTHER_KINDS = ("delayed-scanner", "repeatable-scheduler", "intake")
HALF_SECONDS = 2.5 * LEASE_SECONDS
SOAK_ROUNDS = 5


@pytest.mark.slow
async def test_workers_that_live_are_not_declared_dead_by_a_recovery_that_stood_still(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        await play(scene, redis_url, amqp_url, freezes=[{RECOVERY: 2 * HALF_SECONDS, OTHERS: HALF_SECONDS}])


@pytest.mark.soak
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_so_it_is_on_either_store_where_all_but_the_workers_stand_still(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    store = request.getfixturevalue(given)
    alone, together = {RECOVERY: 2 * HALF_SECONDS}, {RECOVERY: 2 * HALF_SECONDS, OTHERS: 2 * HALF_SECONDS}
    async with Scene(tmp_path, seed=seed, store=store, broker=amqp_url, shares_store=True, shares_broker=True) as scene:
        await play(scene, store, amqp_url, freezes=[alone, together] * SOAK_ROUNDS)


async def play(scene: Scene, store: str, broker: str, *, freezes: Sequence[Mapping[str, float]]) -> None:
    for number in (1, 2):
        scene.fleet.start(f"worker-{number}", actor("worker", app=APP, queues=QUEUES))
    scene.fleet.start(RECOVERY, actor("stalled-recovery", app=APP))
    scene.fleet.start(OTHERS, actor(*OTHER_KINDS, app=APP))
    scene.start_producers(rate=RATE, submitted=0.1)
    await scene.up()
    async with Callboard(broker=broker, store=store, namespace=scene.namespace) as app:
        debts = Debts(scene, app)
        for seconds in freezes:
            await freeze(scene, app, debts, seconds)
    await scene.all_recorded()
    await scene.settle()

    verdict = await scene.judge(CONNECTION_LOST)
    assert verdict.repeated == ()
    await scene.assert_nobody_was_given_up()


async def freeze(scene: Scene, app: Callboard, debts: Debts, seconds: Mapping[str, float]) -> None:
    """Stop these members, each for so long, so that all of them go on at the same moment."""
    owed: list[Debt] = []
    before, started = await beats(app), len(scene.started())
    left = max(seconds.values())
    for name, its in sorted(seconds.items(), key=lambda item: -item[1]):
        await asyncio.sleep(left - its)
        left = its
        scene.fleet[name].signal(signal.SIGSTOP)
        owed += [await debts.owe(kind) for kind in (OTHER_KINDS if name == OTHERS else ("stalled-recovery",))]
    await asyncio.sleep(left)
    for debt in owed:
        await debts.assert_open(debt)
    after = await beats(app)
    for name in seconds:
        scene.fleet[name].signal(signal.SIGCONT)
    runs = len(scene.started()) - started
    print(f"stopped for {dict(seconds)} s: {len(owed)} jobs waited for it, {runs} handlers were started meanwhile")
    assert after.keys() == before.keys(), "a worker's row has come or gone"
    assert [row for row, beat in before.items() if after[row] <= beat] == [], "a worker's heart has stood still"
    assert runs > 0
    for debt in owed:
        await debts.settled(debt)


async def beats(app: Callboard) -> dict[tuple[str, str], int]:
    rows = await app.connections.store.get(Workers).workers(QUEUES)
    return {(row.queue, row.boot): row.beat for row in rows}
