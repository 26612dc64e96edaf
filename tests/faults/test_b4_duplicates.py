"""B4: tickets come twice, out of order, and an hour late.

Injects: under the standard load, each worker's consumer hands its deliveries over in another order, up to a hundred at
a time, and publishes every tenth message again, as it came. Relays and reconciling, which send copies of their own, are
told to wait for longer than this takes. Afterwards a worker that knows of nothing gets a thousand of the tickets once
more, an hour old by what they say: of jobs that are over, of jobs that were removed, of jobs that were removed and made
anew, and of jobs of which not even a tombstone is left.
Bites: the broker has confirmed each copy, and there are many; each of the old tickets was asked about.
Passes: the standard pass with no run repeated; at most one claim of each dispatch (I2) and one start (I3); as many
tickets refused as there were copies, and as the workers count themselves; of the old ones none started: each is
answered as what it is, and those of unknown jobs are put aside.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.brokers.message import Message, Receipt
from callboard.metadata.contract import MAX_BATCH, Jobs, Retention, Verdict
from callboard.metadata.job import Job
from faults import doubling
from faults.doubling import Notes, confirmed
from faults.fleet import SERVES, actor
from faults.scene import SETTINGS, Scene
from faults.workload import APP, QUEUES

JOBS = 1100
RATE = 250.0
TENTH = 10
FEWEST_COPIES = 50
OLD = 1000
HOUR = 3_600_000
PATIENCE_SECONDS = 60.0
# Nothing is lost here, so nobody shall take anything for lost: each copy is to be one of ours.
NO_OTHER_COPIES = {
    "CALLBOARD_RELAY_GRACE_SECONDS": "60",
    "CALLBOARD_RECONCILE_GRACE_SECONDS": "600",
    "CALLBOARD_OVERTAKEN_SECONDS": "600",
}
REFUSED = {
    *(Verdict.MINE, Verdict.TAKEN, Verdict.STALE, Verdict.FINAL),
    *(Verdict.GONE, Verdict.NOT_DUE, Verdict.AHEAD),
}


def start_worker(scene: Scene, name: str, notes: Path, *, every: int) -> None:
    given = {doubling.NOTES: str(notes), doubling.DOUBLED: str(every), doubling.SEED: f"{scene.seed} {name}"}
    scene.fleet.start(name, actor("worker", app=doubling.APP, queues=QUEUES), **given)


def answers(notes: Notes) -> Counter[Verdict]:
    return Counter(claim.verdict for claim in notes.claims())


def refused(notes: Notes) -> int:
    return sum(count for verdict, count in answers(notes).items() if verdict in REFUSED)


def assert_one_claim_for_each_dispatch(notes: Notes) -> None:
    claimed = Counter((one.job, one.dispatch) for one in notes.claims() if one.verdict is Verdict.CLAIMED)
    assert [dispatch for dispatch, times in claimed.items() if times > 1] == []


@pytest.mark.slow
async def test_no_copy_of_a_ticket_starts_anything_and_each_is_refused_and_counted(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    settings = {**SETTINGS, **NO_OTHER_COPIES}
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True, settings=settings
    ) as scene:
        notes = Notes(tmp_path / "notes")
        for name in ("worker-1", "worker-2"):
            start_worker(scene, name, tmp_path / "notes", every=TENTH)
        scene.fleet.start("others-1", actor("delayed-scanner", "stalled-recovery", "retention", app=APP))
        scene.start_producers(rate=RATE, limit=JOBS)
        await scene.up()
        await scene.until(lambda: not any(p.running for p in scene.producers), "all were sent", PATIENCE_SECONDS)
        await scene.drain()
        await scene.until(lambda: refused(notes) >= confirmed(notes.copies()), "copies refused", PATIENCE_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (told := await scene.copies_refused()) < refused(notes):  # with the next heartbeat
                await asyncio.sleep(0.1)
        await scene.stop()
        copies = confirmed(notes.copies())  # only now: of what was refused, the last may have been confirmed late
        verdict = await scene.judge()

        print(f"{copies} copies; answers: {dict(answers(notes))}")
        assert verdict.accepted == JOBS
        assert verdict.repeated == ()
        assert_one_claim_for_each_dispatch(notes)
        assert refused(notes) == told >= copies >= FEWEST_COPIES  # more: a job that was handed over has a ticket, too

        await replay(scene, notes.bodies(), Notes(tmp_path / "replayed"), tmp_path / "replayed")


async def replay(scene: Scene, bodies: Sequence[bytes], notes: Notes, folder: Path) -> None:
    """The old tickets. Nothing but this runs any more."""
    finals, starts = await scene.finals(), len(scene.started())
    old = dict(list(tickets_of(bodies).items())[:OLD])
    assert len(old) == OLD
    fate = {job: Verdict.FINAL for job, _ in old}
    ids = list(fate)
    fate |= dict.fromkeys(ids[:50], Verdict.STALE)
    fate |= dict.fromkeys(ids[50:300], Verdict.GONE)
    fate |= dict.fromkeys(ids[300:500], Verdict.UNKNOWN)
    expected = Counter(fate[job] for job, _ in old)

    deployed = scene.fleet.deployed
    async with Callboard(broker=deployed.broker, store=deployed.store, namespace=scene.namespace) as app:
        await make_history(app, finals, fate)
        messages = [
            Message(exchange="", routing_key=scene.names.job_queue(finals[job].queue), body=body, priority=5)
            for (job, _), body in old.items()
        ]
        receipts = await app.connections.broker.publish(messages, timeout=PATIENCE_SECONDS)
        assert set(receipts) == {Receipt.CONFIRMED}
        start_worker(scene, "worker-late", folder, every=0)
        await scene.until(lambda: answers(notes).total() >= OLD, "all old tickets are answered", PATIENCE_SECONDS)
        dead = await ready(app, scene.names.dead, lambda count: count >= expected[Verdict.UNKNOWN])
        await scene.until(lambda: scene.fleet["worker-late"].said(SERVES), "the worker serves", PATIENCE_SECONDS)
        await scene.stop()

        print(f"{OLD} old tickets; answers: {dict(answers(notes))}; {dead} put aside; {len(scene.started())} starts")
        assert answers(notes) == expected
        assert dead == expected[Verdict.UNKNOWN]
        assert len(scene.started()) == starts
        assert [await ready(app, scene.names.job_queue(queue), lambda _: True) for queue in QUEUES] == [0] * len(QUEUES)
        assert await scene.audit() == []


def tickets_of(bodies: Sequence[bytes]) -> dict[tuple[str, int], bytes]:
    """By job and dispatch, in a message of its own, as it would have been sent an hour before."""
    found = {}
    for bundle in map(json.loads, bodies):
        for ticket in bundle["jobs"]:
            alone = {**bundle, "at": bundle["at"] - HOUR, "jobs": [ticket]}
            found[ticket["id"], ticket["dispatch"]] = json.dumps(alone).encode()
    return found


async def make_history(app: Callboard, finals: Mapping[str, Job], fate: Mapping[str, Verdict]) -> None:
    now = app.clock.now()
    await remove(app, finals, [job for job, verdict in fate.items() if verdict is Verdict.UNKNOWN])
    retention = app.connections.store.get(Retention)
    while (await retention.prune(QUEUES, now=now + 10_000, adoption_window=0, limit=MAX_BATCH)).more:
        pass  # ends: each turn forgets some of a finite number of tombstones
    renewed = [job for job, verdict in fate.items() if verdict is Verdict.STALE]
    await remove(app, finals, [*renewed, *(job for job, verdict in fate.items() if verdict is Verdict.GONE)])
    for job in renewed:
        await app.queue(finals[job].queue).add("work", [0, False], job_id=job, delay=HOUR / 1000)


async def remove(app: Callboard, finals: Mapping[str, Job], ids: Sequence[str]) -> None:
    by_queue = defaultdict(list)
    for job in ids:
        by_queue[finals[job].queue].append(job)
    for queue, some in by_queue.items():
        for start in range(0, len(some), MAX_BATCH):
            batch = some[start : start + MAX_BATCH]
            await app.connections.store.get(Jobs).remove(queue, batch, now=app.clock.now())


async def ready(app: Callboard, queue: str, enough: Callable[[int], bool]) -> int:
    """How many messages are in that queue of the broker, once there are enough."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            depth = await app.connections.broker.depth(queue)
            if depth is not None and enough(depth.ready):
                return depth.ready
            await asyncio.sleep(0.1)
