"""K5: the machine of a worker is suspended for longer than the lease, in the middle of its work.

Injects: the worker is stopped until recovery has given its jobs to another one; when it goes on, its CLOCK_MONOTONIC is
where it was, and CLOCK_BOOTTIME has not stood still. Its network comes back a second later, so nobody tells it. Bites:
the handlers note what both clocks say; their jobs ran again elsewhere under their locks, each counted once as stalled;
and a worker that goes by CLOCK_MONOTONIC, which is the control, believes in its lease and in its locks after it woke.
Passes: no look of a handler after the sleep, from the first one on, finds a lease or a lock that is believed to be
held; the worker goes on under a new boot id once it has its network; each job is completed.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec
import pytest
from yarl import URL

from callboard import Callboard
from callboard.metadata.job import State
from faults.fleet import LEASE_SECONDS, SERVES, actor
from faults.proxy import Conditions, Proxy
from faults.scene import UP_SECONDS, Scene, elapsed
from faults.skew import Skew
from faults.suspended_tasks import APP, AWAKE_SECONDS, CLOCK, NOTES, QUEUE, Look

JOBS = 4
STANDS_STILL = 1.0  # s; what CLOCK_MONOTONIC may show of a sleep: the moments around it


async def looks_after(
    folder: Path, *, seed: int, library: Path, store: str, broker: str, clock: str
) -> tuple[list[Look], float]:
    """Of the handlers, after their machine slept, and for how long it did."""
    notes, skew = folder / "notes", Skew(library, folder / "skew")
    async with (
        Proxy("127.0.0.1", URL(store).port or 0) as to_store,
        Proxy("127.0.0.1", URL(broker).port or 0) as to_broker,
        Scene(folder, seed=seed, store=store, broker=broker, shares_store=True, shares_broker=True) as scene,
    ):
        fleet, network = scene.fleet, (to_store, to_broker)
        fleet.start("stalled-recovery", actor("stalled-recovery", app=APP))
        told = {
            **skew.environment,
            "CALLBOARD_STORE": str(URL(store).with_port(to_store.port)),
            "CALLBOARD_BROKER": str(URL(broker).with_port(to_broker.port)),
            NOTES: str(notes),
            CLOCK: clock,
        }
        sleeper = fleet.start("worker-1", actor("worker", app=APP, queues=[QUEUE]), **told)
        await scene.until(lambda: sleeper.said(SERVES), "the worker serves", UP_SECONDS)
        async with Callboard(broker=broker, store=store, namespace=scene.namespace) as app:
            ids = [f"job-{number}" for number in range(JOBS)]
            await app.queue(QUEUE).add_bulk([{"task_id": "look", "job_id": id} for id in ids])
            await states(app, ids, State.ACTIVE)
            other = fleet.start("worker-2", actor("worker", app=APP, queues=[QUEUE]), NOTES=str(notes))
            await scene.until(lambda: other.said(SERVES), "the other worker serves", UP_SECONDS)

            since = elapsed()
            sleeper.signal(signal.SIGSTOP)
            for way in network:
                way.both_ways(Conditions(blackhole=True))
            await states(app, ids, State.COMPLETED)
            slept = elapsed() - since
            skew.slept(round(slept * 1000))
            sleeper.signal(signal.SIGCONT)
            await asyncio.sleep(AWAKE_SECONDS)
            for way in network:
                way.heal()
            await scene.until(lambda: sleeper.said("was declared dead"), "the worker knows", UP_SECONDS)
            jobs = [await app.queue(QUEUE).get_job(id) for id in ids]
        assert [(job.state, job.attempts, job.stalled) for job in jobs if job] == [(State.COMPLETED, 2, 1)] * JOBS
        await scene.stop()

    noted = [msgspec.json.decode(line, type=Look) for line in notes.read_bytes().splitlines()]
    after: list[Look] = []
    for id in ids:
        before, first, *more = [look for look in noted if look.job == id]
        assert before.leased
        assert before.locked
        assert first.boottime - before.boottime >= slept - STANDS_STILL > LEASE_SECONDS
        assert first.monotonic - before.monotonic < STANDS_STILL
        after += [first, *more]
    return after, slept


async def states(app: Callboard, ids: list[str], state: State) -> None:
    async with asyncio.timeout(UP_SECONDS):
        while {job.state for id in ids if (job := await app.queue(QUEUE).get_job(id))} != {state}:
            await asyncio.sleep(0.05)


@pytest.mark.soak
async def test_no_lease_and_no_lock_outlives_a_sleep_of_its_machine(
    tmp_path: Path, seed: int, skew_library: Path, redis_url: str, amqp_url: str
) -> None:
    found: dict[str, list[Look]] = {}
    for clock in ("boottime", "monotonic"):
        folder = tmp_path / clock
        folder.mkdir()
        found[clock], slept = await looks_after(
            folder, seed=seed, library=skew_library, store=redis_url, broker=amqp_url, clock=clock
        )
        leased = sum(look.leased for look in found[clock])
        locked = sum(look.locked for look in found[clock])
        print(f"{clock}: slept {slept:.1f} s, {len(found[clock])} looks, {leased} leased, {locked} locked")
    assert not any(look.leased or look.locked for look in found["boottime"])
    assert any(look.leased for look in found["monotonic"])
    assert any(look.locked for look in found["monotonic"])
