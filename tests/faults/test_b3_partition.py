"""B3: a worker is cut off from the store, from the broker, or from both, for three leases in the middle of its work.

Injects: each of two workers reaches its servers through proxies of its own. Both in turn, as the ledger shows a handler
under way in them, are cut off: nothing arrives either way and no connection ends; then all that was held back arrives.
The first one's connection to the broker is too impatient to last so long, the second one's lasts. Where the store is
cut off, it goes on until recovery has given the worker's jobs back. Bites: without the store a worker is declared dead,
and the ends of all runs that the cut came upon are refused; without the broker it starts nothing in the last lease,
while the other one does.
Passes: every accepted job completed, the audit clean, the broker's queues empty, and the worker works on afterwards.
Without the store, jobs run again, but none that the store had not under way in the worker at the cut, and the ends that
were refused are those of the runs that were repeated, each of them and no others; where the broker was there, each was
told as an event that names both workers. Without the broker alone, nothing runs again and nobody is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec import Struct
from yarl import URL

from callboard import Callboard
from callboard.brokers.message import Delivery
from callboard.brokers.topology import Binding, Queue, Topology
from callboard.runtime.wire import Event, decode_events
from faults.checker import Pause
from faults.fleet import Member, actor
from faults.proxy import Conditions, Proxy
from faults.scene import CONNECTION_LOST, SETTINGS, UP_SECONDS, Scene, elapsed
from faults.storm import Tail
from faults.test_p5_worker_frozen import failed, given_back, renewed, taken_over
from faults.workload import APP, QUEUES

RATE = 120.0
AT_WORK = 3  # handlers, at least, that a cut comes upon
LEASE_SECONDS = 4.0  # a shorter one is lost by itself on a machine with little to spare
DARK_SECONDS = 3 * LEASE_SECONDS
HEARTBEATS = {"worker-1": {"heartbeat": 1}, "worker-2": {}}  # of AMQP, in seconds, where not the usual 15
AWAY = {"store": ["store"], "broker": ["broker"], "both": ["store", "broker"]}
SETTLE_SECONDS = 60.0

Ran = tuple[str, int]  # job, dispatch


class Cut(Struct, frozen=True):
    """`ran`: what the ledger shows under way in the worker; `held`: how many jobs the store had under way in it."""

    since: float
    ran: frozenset[Ran]
    held: int


@pytest.mark.soak
@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_a_worker_cut_off_repeats_at_most_what_it_ran_and_nothing_if_it_has_its_store(
    tmp_path: Path, seed: int, away: str, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    store = request.getfixturevalue(given)
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(
            Scene(
                tmp_path,
                seed=seed,
                store=store,
                broker=amqp_url,
                shares_store=True,
                shares_broker=True,
                settings={**SETTINGS, "CALLBOARD_LEASE_SECONDS": f"{LEASE_SECONDS:g}"},
                settle_seconds=SETTLE_SECONDS,
            )
        )
        servers: dict[str, dict[str, Proxy]] = {}
        for name, heartbeat in HEARTBEATS.items():
            servers[name] = {
                "store": await stack.enter_async_context(between(store)),
                "broker": await stack.enter_async_context(between(amqp_url)),
            }
            scene.fleet.start(
                name,
                actor("worker", app=APP, queues=QUEUES),
                CALLBOARD_STORE=through(store, servers[name]["store"]),
                CALLBOARD_BROKER=str(URL(through(amqp_url, servers[name]["broker"])) % heartbeat),
            )
        scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", "delayed-scanner", app=APP))
        scene.start_producers(rate=RATE)
        app = await stack.enter_async_context(Callboard(broker=amqp_url, store=store, namespace=scene.namespace))
        await scene.up()
        late = await late_ends(app)
        tail = Tail(scene)
        cuts = []
        for worker in scene.workers:
            proxies = [servers[worker.name][server] for server in AWAY[away]]
            play = do_without_broker if away == "broker" else do_without_store
            cuts.append(await play(scene, tail, worker, proxies))
            await scene.note_finals()
        await scene.drain()
        copies = await scene.copies_refused()
        refused = scene.refused()
        async with asyncio.timeout(UP_SECONDS):
            while away == "store" and len(late) < len(refused):
                await asyncio.sleep(0.1)
        await scene.stop()

        verdict = await scene.judge(CONNECTION_LOST)
        print(
            f"cut off while {[len(cut.ran) for cut in cuts]} handlers were under way and {[cut.held for cut in cuts]} "
            f"jobs were held: {len(verdict.repeated)} runs repeated, {len(refused)} late ends refused, {len(late)} "
            f"told as events; {copies} copies refused"
        )
        if away != "store":
            assert scene.fleet.lines("worker-1", "The connection .* was lost") != []
        if away == "broker":
            assert (verdict.repeated, refused) == ((), [])
            await scene.assert_nobody_was_given_up()
            return
        assert len(verdict.repeated) <= sum(cut.held for cut in cuts)
        assert frozenset().union(*(cut.ran for cut in cuts)) <= set(refused)
        assert sorted(refused) == sorted(set(refused)), "one run's end was refused twice"
        assert set(refused) - failed(scene) == taken_over(scene, verdict) - failed(scene)
        if away == "store":
            assert sorted((event.job, event.dispatch) for event in late) == sorted(refused)
            assert [event for event in late if not names_both(scene, event)] == []


async def do_without_store(scene: Scene, tail: Tail, worker: Member, proxies: Sequence[Proxy]) -> Cut:
    """Until its jobs were given to another and, with all back, it has gone on under another boot id."""
    boots, told = tail.boots(worker.pid), renewed(worker)
    cut = await cut_at_work(scene, tail, worker, proxies)
    await asyncio.sleep(DARK_SECONDS)
    await given_back(scene, worker)
    heal(proxies)
    await scene.until(lambda: renewed(worker) > told, f"{worker.name} goes on as another", UP_SECONDS)
    scene.pauses.append(Pause(process=worker.pid, since=cut.since, until=elapsed()))
    await scene.until(lambda: tail.boots(worker.pid) > boots, f"{worker.name} runs jobs again", UP_SECONDS)
    return cut


async def do_without_broker(scene: Scene, tail: Tail, worker: Member, proxies: Sequence[Proxy]) -> Cut:
    """For three leases, and until it runs jobs again with all back."""
    cut = await cut_at_work(scene, tail, worker, proxies)
    await asyncio.sleep(DARK_SECONDS)
    heal(proxies)
    healed = elapsed()
    starters = {start.run.process for start in scene.started() if healed - LEASE_SECONDS <= start.elapsed < healed}
    assert starters, "nobody ran anything while the worker was cut off"
    assert worker.pid not in starters, f"{worker.name} was not cut off"
    await scene.until(
        lambda: any(start.run.process == worker.pid and start.elapsed > healed for start in scene.started()),
        f"{worker.name} runs jobs again",
        UP_SECONDS,
    )
    print(f"{worker.name} runs jobs {elapsed() - healed:.2f} s after the broker is back")
    return cut


async def cut_at_work(scene: Scene, tail: Tail, worker: Member, proxies: Sequence[Proxy]) -> Cut:
    """While the ledger says that it runs so many, and the store that it has something."""
    while True:
        await scene.until(lambda: tail.running(worker.pid) >= AT_WORK, f"{worker.name} runs jobs", UP_SECONDS)
        assert all(proxy.connections for proxy in proxies)
        for proxy in proxies:
            proxy.both_ways(Conditions(blackhole=True))
        since = elapsed()
        held = await scene.held(worker.pid)
        ran = frozenset((start.run.job, start.run.dispatch) for start in scene.running(process=worker.pid, at=since))
        if held and len(ran) >= AT_WORK:
            return Cut(since=since, ran=ran, held=held)
        heal(proxies)
        scene.pauses.append(Pause(process=worker.pid, since=since, until=elapsed()))


def heal(proxies: Sequence[Proxy]) -> None:
    for proxy in proxies:
        proxy.heal()


def between(server: str) -> Proxy:
    target = URL(server)
    assert target.host
    assert target.port
    return Proxy(target.host, target.port)


def through(server: str, proxy: Proxy) -> str:
    return str(URL(server).with_host("127.0.0.1").with_port(proxy.port))


async def late_ends(app: Callboard) -> list[Event]:
    """Grows by each event of an end that was refused."""
    names, broker = app.connections.names, app.connections.broker
    queue = f"{names.namespace}.events.test"
    bindings = tuple(Binding(queue, names.events, f"{name}.late") for name in QUEUES)
    await broker.declare(Topology(queues=(Queue(queue, exclusive=True),), bindings=bindings))
    told: list[Event] = []

    def receive(delivery: Delivery) -> None:
        told.extend(decode_events(delivery.body))
        delivery.ack()

    await broker.consume(queue, receive, prefetch=10)
    return told


def names_both(scene: Scene, event: Event) -> bool:
    """The worker whose run it was, and one that ran the job afterwards."""
    boots = {start.run.dispatch: start.run.boot for start in scene.started() if start.run.job == event.job}
    after = {boot for dispatch, boot in boots.items() if dispatch > event.dispatch}
    return boots[event.dispatch] == event.worker and event.other in after
