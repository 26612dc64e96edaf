"""S3: connections to the store break in every way there is, and after every kind of request.

Injects: every process reaches the store through a proxy of its own, under the standard load with a schedule, and with
a worker that is killed (-9), so that recovery has something to do. Each kind of request of each process loses its
reply, twice: it has come from the server, so the request was carried out, and the connection ends with it. Meanwhile
connections are reset, closed in one direction, or carry nothing for a while, both ways or one; at the end those of all
processes at once.
Bites: each operation that keeps jobs alive has lost a reply, and there were as many of the other cuts as there have to
be.
Passes: the standard pass; nothing was applied twice (I8): each job has as many attempts and dispatches as entries in
its history, with one end among them and as many failures and losses as it counts; one job for each occurrence.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from yarl import URL

from callboard import Callboard
from callboard.metadata.job import Job
from callboard.runtime.job_view import view
from faults.fleet import SERVES, actor
from faults.losing_proxy import LosingProxy, mongo_kinds, redis_kinds
from faults.occurrences import every_second
from faults.proxy import Conditions, Direction
from faults.scene import Scene, elapsed
from faults.workload import APP, QUEUES

RATE = 60.0
SUBMITTED = 0.1
OTHERS = ("delayed-scanner", "repeatable-scheduler", "stalled-recovery", "intake", "retention")
ACTORS: Mapping[str, Sequence[str]] = {
    "worker-1": ("worker",),
    "worker-2": ("worker",),
    "others-1": OTHERS,
    "others-2": OTHERS,
}
PRODUCERS = ("producer-1", "producer-2")
SPARED = "others-2"  # by all but what is aimed: a recovery that sees nothing declares nobody dead
TIMES = 2
CUTS = 25
PAUSE_SECONDS = 0.15
DARK_SECONDS = (0.2, 1.0)
OCCURRENCES = 4
PATIENCE_SECONDS = 60.0
# On Redis an operation is a script. On MongoDB it is several commands, told apart by the states that they name: to
# record, to note as sent, to claim, to end, to beat, to look for what is due or unsent, to fire.
OPERATIONS = {
    "redis_url": {
        *("enqueue", "published", "claim", "finish", "heartbeat", "workers", "declare_dead", "take_stalled"),
        *("take_unpublished", "take_overtaken", "take_due", "due_schedules", "fire", "prune"),
    },
    "mongo_url": {
        *("insert waiting-due", "update waiting-due waiting-sent", "find waiting-due waiting-sent"),
        *("update active completed", "update worker", "find worker", "find dead-worker", "find delayed"),
        *("find schedule", "update schedule"),
    },
}
KINDS_OF = {"redis_url": redis_kinds, "mongo_url": mongo_kinds}


class Cutter:
    """Cuts one connection, or all of one process, at a time; who is in the dark is left alone until that ends."""

    def __init__(self, scene: Scene, proxies: Mapping[str, LosingProxy]) -> None:
        self.done: Counter[str] = Counter()
        self._random = scene.random
        self._proxies = proxies
        self._dark: set[str] = set()

    async def cut(self, group: asyncio.TaskGroup) -> None:
        able = [name for name, proxy in self._proxies.items() if proxy.connections and name not in self._dark]
        if not able:  # for a moment
            return
        name = self._random.choice(able)
        how = self._random.choice(["reset", "half closed", "dark"])
        self.done[how] += 1
        match how:
            case "reset":
                self._proxies[name].reset()
            case "half closed":
                self._proxies[name].half_close(self._random.choice(list(Direction)))
            case _:
                group.create_task(self.darken(name))

    async def darken(self, name: str) -> None:
        self._dark.add(name)
        proxy = self._proxies[name]
        ways = self._random.choice([["to_server"], ["to_client"], ["to_server", "to_client"]])
        for way in ways:
            setattr(proxy, way, Conditions(blackhole=True))
        await asyncio.sleep(self._random.uniform(*DARK_SECONDS))
        if self._random.random() < 0.5:
            proxy.reset()
        proxy.heal()
        self._dark.discard(name)


def lost(proxies: Mapping[str, LosingProxy]) -> Counter[str]:
    return sum((proxy.lost for proxy in proxies.values()), Counter[str]())


def missing(proxies: Mapping[str, LosingProxy], operations: set[str]) -> set[str]:
    """What has to lose a reply and has not: of one process each, at least."""
    return operations - lost(proxies).keys()


@pytest.mark.slow
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_no_cut_between_a_request_to_the_store_and_its_reply_loses_or_repeats_anything(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    target = URL(request.getfixturevalue(given))
    assert target.host
    assert target.port
    async with AsyncExitStack() as stack:
        proxies = {
            name: await stack.enter_async_context(
                LosingProxy(target.host, target.port, kinds_of=KINDS_OF[given], times=TIMES)
            )
            for name in (*ACTORS, *PRODUCERS)
        }
        stores = {
            name: {"CALLBOARD_STORE": str(target.with_host("127.0.0.1").with_port(proxy.port))}
            for name, proxy in proxies.items()
        }
        scene = await stack.enter_async_context(
            Scene(
                tmp_path,
                seed=seed,
                store=str(target),
                broker=amqp_url,
                shares_store=True,
                shares_broker=True,
                settle_seconds=PATIENCE_SECONDS,
            )
        )
        for name, kinds in ACTORS.items():
            queues = QUEUES if name.startswith("worker") else ()
            scene.fleet.start(name, actor(*kinds, app=APP, queues=queues), **stores[name])
        scene.start_producers(rate=RATE, submitted=SUBMITTED, environment=stores)
        await scene.up()
        killed = await kill(scene)
        for name, proxy in proxies.items():
            proxy.losing = name != killed
        await schedule(scene)  # only now, for each of its steps to lose a reply
        cutter = await cut(scene, proxies, OPERATIONS[given], killed)
        scene.fleet[killed].start()
        await scene.all_recorded()
        await scene.settle()
        verdict = await scene.judge()

        print(
            f"lost replies {dict(sorted(lost(proxies).items()))}; cuts {dict(cutter.done)}; "
            f"{len(verdict.repeated)} runs repeated"
        )
        assert cutter.done.total() >= CUTS
        assert applied_twice((await scene.finals()).values()) == []


async def schedule(scene: Scene) -> None:
    deployed = scene.fleet.deployed
    name = f"each-second-{len(scene.occurrences)}"
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    async with Callboard(broker=deployed.broker, store=deployed.store, namespace=scene.namespace) as app:
        scene.occurrences |= await every_second(app.queue(QUEUES[0]), name, start=start, times=OCCURRENCES)


async def kill(scene: Scene) -> str:
    """A worker, mostly in the middle of a run; its name."""
    await scene.a_long_run()
    at_work = max(scene.workers, key=lambda worker: len(scene.running(process=worker.pid)))
    await asyncio.to_thread(scene.kill, at_work)
    return at_work.name


async def kill_again(scene: Scene, name: str) -> None:
    """For a death that somebody declares while replies are lost."""
    worker = scene.fleet[name]
    worker.start()
    await scene.until(lambda: worker.said(SERVES), f"{name} serves again", PATIENCE_SECONDS)
    await asyncio.to_thread(scene.kill, worker)


async def cut(scene: Scene, proxies: Mapping[str, LosingProxy], operations: set[str], killed: str) -> Cutter:
    """Until every operation has lost a reply, and as often as there have to be cuts."""
    alive = {name: proxy for name, proxy in proxies.items() if scene.fleet[name].running}
    cutter = Cutter(scene, {name: proxy for name, proxy in alive.items() if name != SPARED})
    over = elapsed() + 2 * OCCURRENCES
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        try:
            while cutter.done.total() < CUTS or missing(alive, operations):
                await cutter.cut(group)
                await scene.note_finals()
                if missing(alive, operations) and elapsed() > over:  # as its schedule is: on a busy machine, too soon
                    await kill_again(scene, killed)
                    await schedule(scene)
                    over = elapsed() + 2 * OCCURRENCES
                await asyncio.sleep(scene.random.uniform(0, 2 * PAUSE_SECONDS))
        except asyncio.CancelledError:
            print(f"not lost: {missing(alive, operations)}; lost: {dict(lost(alive))}")
            raise
    for proxy in alive.values():
        proxy.losing = False
        proxy.both_ways(Conditions(blackhole=True))
    await asyncio.sleep(DARK_SECONDS[0])
    for proxy in alive.values():
        proxy.reset()
        proxy.heal()
    return cutter


def applied_twice(jobs: Iterable[Job]) -> list[object]:
    """Jobs whose records do not add up."""
    wrong: list[object] = []
    for job in jobs:
        outcomes = Counter(run.outcome for run in view(job).history)
        told = (job.attempts, job.dispatch, job.stalled, job.failures, outcomes["completed"])
        runs = outcomes.total()
        if told != (runs, runs, outcomes["stalled"], outcomes["retried"], 1):
            wrong.append((job.id, told, dict(outcomes)))
    return wrong
