"""B2: connections to the broker break in every way there is.

Injects: every process reaches RabbitMQ through a proxy of its own. A hundred times, one of the processes' connections
are reset, closed in one direction, or carry nothing for a while (both ways or one, then on, or reset); or one is cut
after the k-th frame from then on, so that it falls between a publish and its confirm, or a delivery and its ack.
Bites: a cut counts if there was a connection to cut, and an aimed one when it has happened; all have to, and the
workers must have refused copies of tickets.
Passes: every accepted job completed after one run (or one more than its own failures): none of the copies that the cuts
made ran, no handler stopped; the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
from yarl import URL

from faults.proxy import Conditions, Cut, Direction, Proxy, Unit
from faults.scene import CONNECTION_LOST, UP_SECONDS, Scene

CUTS = 100
RATE = 60.0
PAUSE_SECONDS = 0.25
BLACKHOLE_SECONDS = 3.0
HEARTBEAT_SECONDS = 2
FRAMES = 40
MEMBERS = [
    *(f"worker-{number}" for number in (1, 2, 3)),
    *(f"{kind}-{number}" for kind in ("delayed-scanner", "stalled-recovery", "producer") for number in (1, 2)),
    "retention",
]
TALKING = [name for name in MEMBERS if name.startswith(("worker", "producer"))]


class Cutter:
    """Cuts one at a time; a connection in a blackhole is left alone until that ends."""

    def __init__(self, proxies: dict[str, Proxy], random: Random) -> None:
        self.done: dict[str, int] = {}
        self.aimed: list[Cut] = []
        self._proxies = proxies
        self._random = random
        self._dark: set[str] = set()

    def cut(self, group: asyncio.TaskGroup) -> None:
        how = self._random.choice([self._reset, self._half_close, self._darken, self._aim])
        names = TALKING if how == self._aim else MEMBERS
        able = [name for name in names if self._proxies[name].connections and name not in self._dark]
        if not able:
            return
        how(self._random.choice(able), group)
        name = how.__name__.strip("_")
        self.done[name] = self.done.get(name, 0) + 1

    def _reset(self, name: str, group: asyncio.TaskGroup) -> None:
        assert self._proxies[name].reset() > 0

    def _half_close(self, name: str, group: asyncio.TaskGroup) -> None:
        assert self._proxies[name].half_close(self._random.choice(list(Direction))) > 0

    def _aim(self, name: str, group: asyncio.TaskGroup) -> None:
        count, direction = self._random.randint(1, FRAMES), self._random.choice(list(Direction))
        self.aimed.append(self._proxies[name].cut_after(count, Unit.FRAMES, direction))

    def _darken(self, name: str, group: asyncio.TaskGroup) -> None:
        self._dark.add(name)
        group.create_task(self._dark_for_a_while(name))

    async def _dark_for_a_while(self, name: str) -> None:
        proxy, ways = self._proxies[name], self._random.choice(["to_server", "to_client", "both_ways"])
        if ways == "both_ways":
            proxy.both_ways(Conditions(blackhole=True))
        else:
            setattr(proxy, ways, Conditions(blackhole=True))
        await asyncio.sleep(self._random.uniform(0.3, BLACKHOLE_SECONDS))
        if self._random.random() < 0.5:
            proxy.reset()
        proxy.heal()
        self._dark.discard(name)


@pytest.mark.slow
async def test_no_cut_of_a_connection_loses_or_repeats_a_job(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    target = URL(amqp_url)
    assert target.host
    async with AsyncExitStack() as stack:
        proxies = {name: await stack.enter_async_context(Proxy(target.host, target.port or 5672)) for name in MEMBERS}

        def broker_of(name: str) -> str:
            return str(target.with_host("127.0.0.1").with_port(proxies[name].port) % {"heartbeat": HEARTBEAT_SECONDS})

        scene = await stack.enter_async_context(
            Scene(tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True)
        )
        scene.start_actors(broker_of=broker_of)
        scene.start_producers(rate=RATE, broker_of=broker_of)
        await scene.up()

        cutter = Cutter(proxies, scene.random)
        async with asyncio.TaskGroup() as group:
            while sum(cutter.done.values()) < CUTS:
                cutter.cut(group)
                await scene.note_finals()
                await asyncio.sleep(scene.random.uniform(0, 2 * PAUSE_SECONDS))
        async with asyncio.timeout(UP_SECONDS):
            for aimed in cutter.aimed:
                await aimed.happened()

        await scene.drain()
        copies = await scene.copies_refused()
        await scene.stop()
        verdict = await scene.judge(CONNECTION_LOST)

        print(f"cuts {cutter.done}, {len(scene.journals('uncertain'))} uncertain answers, {copies} copies refused")
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
        assert copies >= 1
