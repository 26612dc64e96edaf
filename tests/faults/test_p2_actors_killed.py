"""P2: every actor but the workers is killed under load, one kind after the other, then all at once.

Injects: SIGKILL of all replicas of scanner, scheduler, recovery, intake or retention, at a random moment of the
standard load, of which a fifth goes by intake, with a schedule that occurs every second; then of all of them together.
They are started again once it has bitten: a job whose delay is over, one that a schedule has to make, one that was
recorded and not sent, one that was submitted, and dead letters beyond their number each wait for the kind that alone
could see to it, and still do well after their time.
Passes: what waited is done once they are back, and under load nothing older than 5 s stays in the outbox; every
accepted job and one for each occurrence is completed; no worker is declared dead and no job is run twice; the audit
clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.metadata.contract import Inspection
from callboard.metadata.job import Outbox, State
from faults.debts import DEAD_LETTERS, QUEUE, Debts
from faults.fleet import CONNECTED, actor
from faults.occurrences import every_second
from faults.scene import LOOK_SECONDS, SETTINGS, UP_SECONDS, Scene
from faults.workload import APP, QUEUES

KINDS = ("delayed-scanner", "repeatable-scheduler", "stalled-recovery", "intake", "retention")
RATE = 60.0
SUBMITTED = 0.2
OCCURRENCES = 10
OLD_SECONDS = 5.0
SOAK_ROUNDS = 5
PAGE = 1000


class Ensemble:
    """Of every actor so many `replicas`, each in a process of its own."""

    def __init__(self, scene: Scene, app: Callboard, *, replicas: int) -> None:
        self.scene = scene
        self._app = app
        self._replicas = replicas
        self._debts = Debts(scene, app)

    async def up(self) -> None:
        scene = self.scene
        for number in range(1, self._replicas + 1):
            scene.fleet.start(f"worker-{number}", actor("worker", app=APP, queues=QUEUES))
            for kind in KINDS:
                scene.fleet.start(f"{kind}-{number}", actor(kind, app=APP))
        scene.start_producers(rate=RATE, submitted=SUBMITTED)
        await scene.up()
        start = datetime.now(UTC).replace(microsecond=0)
        scene.occurrences |= await every_second(
            self._app.queue(QUEUE), "every-second", start=start, times=OCCURRENCES * self._replicas
        )

    async def outage(self, kinds: Sequence[str]) -> None:
        """Kill all of these kinds; start them again when it has been felt, and wait until one has made it good."""
        scene = self.scene
        await asyncio.sleep(scene.random.uniform(0, 0.5))
        gone = [member for kind in kinds for member in scene.fleet.named(kind)]
        for member in gone:
            await asyncio.to_thread(scene.kill, member)
        owed = [await self._debts.owe(kind) for kind in kinds]
        for debt in owed:
            await self._debts.assert_open(debt)
        for member in gone:
            member.start()
        for debt in owed:
            await self._debts.settled(debt)
        await scene.note_finals()

    async def recovered(self) -> None:
        """Wait until all are back, and no job that was recorded more than OLD_SECONDS ago is in the outbox."""
        others = [member for kind in KINDS for member in self.scene.fleet.named(kind)]
        await self.scene.until(lambda: all(m.said(CONNECTED) for m in others), "all are back", UP_SECONDS)
        async with asyncio.timeout(UP_SECONDS):
            while await self._old_and_unsent():
                await asyncio.sleep(LOOK_SECONDS)

    async def _old_and_unsent(self) -> list[str]:
        before = self._app.clock.now() - OLD_SECONDS * 1000
        inspection = self._app.connections.store.get(Inspection)
        pages = [
            await inspection.page(queue, State.WAITING, offset=0, limit=PAGE, newest_first=False) for queue in QUEUES
        ]
        return [job.id for page in pages for job in page if job.outbox is Outbox.DUE and job.created_at < before]


async def play(folder: Path, seed: int, store: str, broker: str, *, replicas: int, rounds: int) -> None:
    settings = {**SETTINGS, **DEAD_LETTERS}
    async with (
        Scene(
            folder, seed=seed, store=store, broker=broker, shares_store=True, shares_broker=True, settings=settings
        ) as scene,
        Callboard(broker=broker, store=store, namespace=scene.namespace) as app,
    ):
        ensemble = Ensemble(scene, app, replicas=replicas)
        await ensemble.up()
        for _ in range(rounds):
            for kind in scene.random.sample(KINDS, len(KINDS)):
                await ensemble.outage([kind])
            await ensemble.outage(KINDS)
        await ensemble.recovered()
        await scene.all_recorded()
        await scene.settle()

        verdict = await scene.judge()
        assert verdict.kills == rounds * replicas * 2 * len(KINDS)
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
        assert {queue: counts.unpublished for queue, counts in (await scene.counts()).items()} == dict.fromkeys(
            QUEUES, 0
        )


@pytest.mark.slow
async def test_actors_killed_alone_and_all_at_once_lose_no_job_and_repeat_none(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    await play(tmp_path, seed, redis_url, amqp_url, replicas=1, rounds=1)


@pytest.mark.soak
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_so_it_is_with_two_of_each_again_and_again_on_either_store(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    await play(tmp_path, seed, request.getfixturevalue(given), amqp_url, replicas=2, rounds=SOAK_ROUNDS)
