"""A storm over a fleet: processes killed, or stopped and continued, connections cut, servers restarted, at random.

    async with Storm(scene, store=store, broker=broker) as storm:
        storm.start_fleet(replicas=True)
        await scene.up()
        await storm.rage(300, restarts={75: storm.restart_broker, 150: storm.restart_store})

Every process reaches each server through a proxy of its own. One fault at a time befalls a member; several members may
suffer at once, also while a server is away. When `rage` returns, everything runs again.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from random import Random
from types import TracebackType
from typing import Self

from yarl import URL

from faults import ledger
from faults.checker import Pause
from faults.fleet import CONNECTED, LEASE_SECONDS, SERVES, Member, actor
from faults.proxy import Conditions, Direction, Proxy
from faults.scene import LOOK_SECONDS, Scene, elapsed
from faults.workload import APP, QUEUES
from servers import MongoServer, RabbitMQServer, RedisServer, ServerFailed

WORKERS = [f"worker-{number}" for number in (1, 2, 3, 4)]
OTHERS = ("delayed-scanner", "repeatable-scheduler", "stalled-recovery", "intake", "retention")
PRODUCERS = ("producer-1", "producer-2")
RISING_SECONDS = 180.0  # for what was killed to be back, on a machine with little to spare
AIM_SECONDS = 10.0  # for a worker to be in the middle of a run
LONGEST_STOP = 2.5  # leases
LONGEST_DARKNESS = 1.0  # of a connection, in leases
HEARTBEAT_SECONDS = 5  # of AMQP
STARTS = 3  # of a server

Fault = Callable[[Member], Awaitable[None]]
Restart = Callable[[], Awaitable[None]]
DurableStore = RedisServer | MongoServer


class Tail:
    """What of the ledger was not read yet: a storm cannot read all of it at each step."""

    def __init__(self, scene: Scene) -> None:
        self._path = scene.ledger
        self._place = 0
        self._under_way: dict[ledger.Run, ledger.Entry] = {}
        self._boots: defaultdict[int, set[str]] = defaultdict(set)

    def running(self, process: int) -> int:
        """How many handlers of that process are under way."""
        self._read()
        return sum(run.process == process for run in self._under_way)

    def boots(self, process: int) -> frozenset[str]:
        """Under which ids that process has started handlers."""
        self._read()
        return frozenset(self._boots[process])

    def _read(self) -> None:
        for entry in self._new():
            if entry.event is ledger.Event.START:
                self._under_way[entry.run] = entry
                self._boots[entry.run.process].add(entry.run.boot)
            else:
                self._under_way.pop(entry.run, None)

    def _new(self) -> Sequence[ledger.Entry]:
        if not self._path.exists():
            return ()
        with self._path.open("rb") as file:
            file.seek(self._place)
            complete = file.read().rpartition(b"\n")[0]
        self._place += len(complete) + 1 if complete else 0
        return ledger.entries(complete.decode())


class Storm:
    def __init__(self, scene: Scene, *, store: DurableStore, broker: RabbitMQServer, pause_seconds: float) -> None:
        """`pause_seconds`: between two faults, in the mean."""
        self.done: Counter[str] = Counter()
        self._scene = scene
        self._store = store
        self._broker = broker
        self._pause = pause_seconds
        self._random: Random = scene.random
        self._tail = Tail(scene)
        self._proxies: dict[str, tuple[Proxy, Proxy]] = {}
        self._members: list[str] = []
        self._busy: set[str] = set()
        self._stack = AsyncExitStack()

    async def start_fleet(self, *, apart: bool, rate: float, limit: int, submitted: float) -> None:
        """Four workers, two of every other actor, two producers of `limit` jobs together, a part `submitted` of which
        go by intake. `apart`: each in a process of its own; else two processes with one of each other actor."""
        kinds: dict[str, Sequence[str]] = dict.fromkeys(WORKERS, ("worker",))
        for number in (1, 2):
            for name, actors in [(kind, (kind,)) for kind in OTHERS] if apart else [("others", OTHERS)]:
                kinds[f"{name}-{number}"] = actors
        self._members = [*kinds]
        for name in (*self._members, *PRODUCERS):
            self._proxies[name] = await self._between(self._store.port), await self._between(self._broker.port)
        for name, actors in kinds.items():
            queues = QUEUES if actors == ("worker",) else ()
            self._scene.fleet.start(name, actor(*actors, app=APP, queues=queues), **self._addresses(name))
        self._scene.start_producers(
            rate=rate, limit=limit, submitted=submitted, environment={name: self._addresses(name) for name in PRODUCERS}
        )

    async def _between(self, port: int) -> Proxy:
        return await self._stack.enter_async_context(Proxy("127.0.0.1", port))

    def _addresses(self, name: str) -> Mapping[str, str]:
        store, broker = self._proxies[name]
        through = URL(self._broker.url).with_port(broker.port) % {"heartbeat": HEARTBEAT_SECONDS}
        return {
            "CALLBOARD_STORE": str(URL(self._store.url).with_port(store.port)),
            "CALLBOARD_BROKER": str(through),
        }

    # --- the storm ---

    async def rage(self, seconds: float, *, restarts: Mapping[float, Restart]) -> None:
        """For so long; `restarts` by the second at which they come. Returns when all are up again."""
        since = elapsed()
        pending = sorted(restarts.items(), key=lambda item: item[0])
        async with asyncio.TaskGroup() as group:
            self._befall(self._random.choice(WORKERS), self._kill_worker, group)  # none of this may depend on luck
            while (now := elapsed() - since) < seconds:
                while pending and pending[0][0] <= now:
                    group.create_task(_called(pending.pop(0)[1]))
                self._start_again()
                self._strike(group)
                await self._scene.note_finals()
                await asyncio.sleep(self._random.uniform(0, 2 * self._pause))
        assert not pending, f"{len(pending)} restarts were to come after the end"
        for member in map(self._scene.fleet.__getitem__, self._members):
            await self._is_up(member)

    def _start_again(self) -> None:
        """What ended because a server was away when it started: whoever runs such processes starts them again."""
        for name in self._members:
            if name not in self._busy and not self._scene.fleet[name].running:
                self.done["started again"] += 1
                self._scene.fleet[name].start()

    def _strike(self, group: asyncio.TaskGroup) -> None:
        how = self._random.choices(
            [self._kill_worker, self._kill_other, self._stop, self._cut, self._darken], weights=[3, 2, 2, 3, 1]
        )[0]
        choice = {self._kill_worker: WORKERS, self._kill_other: self._members[len(WORKERS) :]}.get(how, self._members)
        names = [*choice, *PRODUCERS] if how in (self._cut, self._darken) else choice
        able = [name for name in names if name not in self._busy and self._scene.fleet[name].running]
        if able:
            self._befall(self._random.choice(able), how, group)

    def _befall(self, name: str, how: Fault, group: asyncio.TaskGroup) -> None:
        self._busy.add(name)
        group.create_task(self._suffer(name, how))

    async def _suffer(self, name: str, how: Fault) -> None:
        try:
            await how(self._scene.fleet[name])
            self.done[how.__name__.strip("_")] += 1
        finally:
            self._busy.discard(name)

    async def _kill_worker(self, member: Member) -> None:
        await self._is_up(member)
        deadline = elapsed() + AIM_SECONDS
        while not self._tail.running(member.pid) and elapsed() < deadline:
            await asyncio.sleep(LOOK_SECONDS / 10)
        await self._kill_other(member)

    async def _kill_other(self, member: Member) -> None:
        await asyncio.to_thread(self._scene.kill, member)
        await asyncio.sleep(self._random.uniform(0, 1))
        member.start()

    async def _stop(self, member: Member) -> None:
        pid, since = member.pid, elapsed()
        member.signal(signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.2, LONGEST_STOP) * LEASE_SECONDS)
        member.signal(signal.SIGCONT)
        self._scene.pauses.append(Pause(process=pid, since=since, until=elapsed()))

    async def _cut(self, member: Member) -> None:
        proxy = self._random.choice(self._proxies[member.name])
        if self._random.random() < 0.5:
            proxy.reset()
        else:
            proxy.half_close(self._random.choice(list(Direction)))

    async def _darken(self, member: Member) -> None:
        proxy, ways = self._random.choice(self._proxies[member.name]), self._random.choice(["in", "out", "both"])
        if ways != "out":
            proxy.to_client = Conditions(blackhole=True)
        if ways != "in":
            proxy.to_server = Conditions(blackhole=True)
        await asyncio.sleep(self._random.uniform(0.1, LONGEST_DARKNESS) * LEASE_SECONDS)
        if self._random.random() < 0.5:
            proxy.reset()
        proxy.heal()

    async def _is_up(self, member: Member) -> None:
        word = SERVES if member.name in WORKERS else CONNECTED
        deadline = elapsed() + RISING_SECONDS
        while not member.said(word):
            assert elapsed() < deadline, f"{member.name} is not up after {RISING_SECONDS:g} s"
            if not member.running:
                self.done["started again"] += 1
                member.start()
            await asyncio.sleep(LOOK_SECONDS)

    # --- servers ---

    async def restart_broker(self) -> None:
        await self._restart(self._broker)

    async def restart_store(self) -> None:
        await self._restart(self._store)

    async def _restart(self, server: DurableStore | RabbitMQServer) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(self._random.uniform(0, LEASE_SECONDS))
        for attempt in range(1, STARTS + 1):
            try:
                await asyncio.to_thread(server.start)
                break
            except ServerFailed:  # on a machine with little to spare, a boot may take longer than it is given
                if attempt == STARTS:
                    raise
        self.done[f"{type(server).__name__} restarted"] += 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._scene.fleet.close)  # else they would complain of their connections
        await self._stack.aclose()


async def _called(restart: Restart) -> None:
    await restart()
