"""A world in one event loop: a store, a broker, the line to them, processes that come and go, and virtual time.

slot "worker 1" ──starts──> process ──app.open──> SimulatedStore, SimulatedBroker ──> MemoryStore, MemoryServer
     └─ starts another one when it is gone             Weather: what happens to each call and message
                                                       Watch: what must never be
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

from ....brokers.errors import BrokerError
from ....brokers.memory_server import MemoryServer
from ....brokers.message import Receipt
from ....brokers.topology import Names
from ....metadata.contract import Inspection, QueueControl
from ....metadata.errors import StoreUnavailable
from ....metadata.job import State
from ....metadata.memory import MemoryStore
from ....metadata.schedules import Schedules
from ...actor import Actor, Options, Stage
from ...app import Callboard
from ...clock import Clock
from ...connections import Connections
from ...errors import EnqueueUncertain
from ...opened import Opened
from ...settings import Settings
from ...supervisor import Supervisor
from .broker import SimulatedBroker
from .faults import Fate, Faults, Weather
from .loop import Process, VirtualLoop, current_process
from .store import SimulatedStore, step
from .watch import Watch

RESTART_SECONDS = 1.0  # a process that is gone is started again within that time
OUTAGES = (StoreUnavailable, BrokerError, EnqueueUncertain)  # what a process may end with while faults come

LOG = "callboard.simulation"

log = logging.getLogger(LOG)


class VirtualClock:
    def __init__(self, loop: VirtualLoop, start: int) -> None:
        self._loop = loop
        self._start = start

    def now(self) -> int:
        return self._start + int(self._loop.time() * 1000)

    def elapsed(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimulatedConnections(Opened):
    """Of one process."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__()
        self._world = world
        self._process = process
        self.broker: SimulatedBroker | None = None
        self.store: SimulatedStore | None = None

    def connect(self, settings: Settings, clock: Clock) -> Connections:
        world, process = self._world, self._process
        self.broker, self.store = world.connect_broker(process), world.connect_store(process)
        return Connections(settings, clock, broker=self.broker, store=self.store)


class Slot:
    """A process that is to be there: `main` is what it does, and is begun again whenever it is gone, unless it ended by
    itself. `safe`: nothing happens to it."""

    def __init__(self, world: World, name: str, main: Callable[[Slot], Awaitable[object]], *, safe: bool) -> None:
        self.name = name
        self.safe = safe
        self.ended = False
        self.process: Process | None = None
        self.cut_off_until = 0.0
        self.answers_only = False
        self.supervisor: Supervisor | None = None
        self.starts = 0
        self.finite = True  # it has an end, and is waited for
        self._world = world
        self._main = main

    def start(self) -> None:
        if self.ended:
            return
        world = self._world
        self.starts += 1
        process = world.loop.process(f"{self.name}.{self.starts}")
        process.crashed = lambda: self._crashed(process)
        world.inhabit(process, self)
        self.process = process
        self.supervisor = None
        world.loop.create_task(self._live(process), context=process.context)

    def stop(self) -> None:
        """As by SIGTERM."""
        if self.process is not None and self.process.alive and self.supervisor is not None:
            self._world.loop.call_soon(self.supervisor.stop, context=self.process.context)

    async def _live(self, process: Process) -> None:
        try:
            await self._main(self)
        except OUTAGES as error:
            log.info("%s ended: %r", process.name, error)
        except Exception as error:
            self._world.failed(process, error)
        else:
            self.ended = self.finite
        self._world.loop.crash(process)

    def _crashed(self, process: Process) -> None:
        world = self._world
        if world.watch.trace is not None:
            world.watch.trace(f"{process.name} is gone")
        world.left(process)
        world.loop.call_later(world.random.random() * RESTART_SECONDS, self.start)


class World:
    """Made for one run. `actors`: their classes by kind; `random` decides all that the seed decides."""

    def __init__(
        self,
        app: Callboard,
        random: Random,
        *,
        faults: Faults,
        actors: Mapping[str, type[Actor]],
        options: Options,
        start: int,
        most_steps: int,
        store: MemoryStore | None = None,
        durable: bool = True,
    ) -> None:
        self.app = app
        self.random = random
        self.weather = Weather(faults, random)
        # It has what asyncio asks for; what is for sockets, signals and subprocesses raises NotImplementedError.
        self.loop = VirtualLoop(random, most_steps=most_steps, failed=self.failed)  # type: ignore[abstract]
        self.clock = VirtualClock(self.loop, start)
        self.watch = Watch(elapsed=self.loop.time, now=self.clock.now, lease=app.settings.lease_seconds)
        self.store = store or MemoryStore(namespace=app.settings.namespace)
        self.broker = MemoryServer()
        self.durable = durable
        self.slots: dict[str, Slot] = {}
        self._actors = actors
        self._options = options
        self._faults = faults
        self._opened: dict[Process, SimulatedConnections] = {}
        self._homes: dict[Process, Slot] = {}

    # --- who is there ---

    def add(self, name: str, main: Callable[[Slot], Awaitable[object]], *, safe: bool = False) -> Slot:
        slot = self.slots[name] = Slot(self, name, main, safe=safe)
        self.loop.call_later(self.random.random() * 0.05, slot.start, context=self.loop.outside.context)
        return slot

    def add_actors(self, name: str, kinds: Sequence[str]) -> Slot:
        """One process of those actors."""
        actors = [self._actors[kind] for kind in kinds]

        async def main(slot: Slot) -> None:
            async with self.app:
                random = Random(self.random.getrandbits(64))
                await self.app.schedule_all()
                slot.supervisor = Supervisor(self.app, self._make_stage(random), actors, random)
                await slot.supervisor.run()

        slot = self.add(name, main)
        slot.finite = False
        return slot

    def opened(self) -> Opened:
        """Of the process that asks."""
        return self._opened[current_process()]

    def inhabit(self, process: Process, slot: Slot) -> None:
        self._opened[process] = SimulatedConnections(self, process)
        self._homes[process] = slot

    def left(self, process: Process) -> None:
        """Its operating system closes its connections, now or a little later."""
        opened = self._opened[process]
        if opened.store is not None:
            self.loop.call_later(self.random.random() ** 4, opened.store.disconnect, context=self.loop.outside.context)
        if opened.broker is not None:
            self.loop.call_later(self.random.random() ** 4, opened.broker.disconnect, context=self.loop.outside.context)

    def _make_stage(self, random: Random) -> Callable[[type[Actor]], Stage]:
        return lambda actor: Stage(actor, self.app, self._options, random=Random(random.getrandbits(64)))

    # --- what happens to calls and messages ---

    def connect_store(self, process: Process) -> SimulatedStore:
        return SimulatedStore(self, process)

    def connect_broker(self, process: Process) -> SimulatedBroker:
        return SimulatedBroker(self, process)

    def fate_of_call(self, process: Process) -> Fate:
        slot = self._homes[process]
        if slot.safe:
            return Fate(there=self.weather.latency(), back=self.weather.latency())
        if slot.cut_off_until > self.loop.time():
            return self.weather.cut_off(answers_only=slot.answers_only)
        return self.weather.of_call()

    def reaches_broker(self, process: Process) -> bool:
        slot = self._homes[process]
        return slot.safe or slot.cut_off_until <= self.loop.time()

    def receipts(self, receipts: list[Receipt]) -> list[Receipt]:
        return receipts

    def failed(self, process: Process, error: BaseException | str) -> None:
        """Something raised what nobody saw to."""
        if self.watch.trace is not None and isinstance(error, BaseException):
            log.error("%s", process.name, exc_info=error)
        self.watch.wrong(f"{process.name} failed: {error!r}")

    # --- what happens to processes ---

    def begin_faults(self) -> None:
        faults = self._faults
        if faults.seconds <= 0:
            return
        for slot in list(self.slots.values()):
            if slot.safe:
                continue
            for rate, fault in (
                (faults.crashes, self._crash),
                (faults.stops, self._stop),
                (faults.pauses, self._pause),
                (faults.partitions, self._cut_off),
                (faults.cuts, self._cut),
            ):
                self._plan(slot, rate, fault)
        if self.random.random() < faults.purges:
            self._later(self.random.random() * faults.seconds, self._purge)
        self._later(faults.seconds, self.get_well)

    def get_well(self) -> None:
        self.weather.well = True
        for slot in self.slots.values():
            slot.cut_off_until = 0.0

    def _later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        self.loop.call_later(seconds, call, *args, context=self.loop.outside.context)

    def _plan(self, slot: Slot, rate: float, fault: Callable[[Slot], None]) -> None:
        seconds = self.weather.happens(rate)
        if seconds is not None:
            self._later(seconds, self._strike, slot, rate, fault)

    def _strike(self, slot: Slot, rate: float, fault: Callable[[Slot], None]) -> None:
        if self.weather.well:
            return
        if slot.process is not None and slot.process.alive:
            if self.watch.trace is not None:
                self.watch.trace(f"{fault.__name__} {slot.process.name}")
            fault(slot)
        self._plan(slot, rate, fault)

    def _crash(self, slot: Slot) -> None:
        """Not now, but between two of the steps that it makes next."""
        assert slot.process is not None
        slot.process.fuse = self.random.randrange(40)

    def _stop(self, slot: Slot) -> None:
        slot.stop()

    def _pause(self, slot: Slot) -> None:
        process = slot.process
        assert process is not None
        self.loop.pause(process)
        self._later(self.random.random() * self._faults.pause_seconds, self.loop.go_on, process)

    def _cut_off(self, slot: Slot) -> None:
        slot.cut_off_until = self.loop.time() + self.random.random() * self._faults.partition_seconds
        slot.answers_only = self.random.random() < 0.5
        if self.random.random() < 0.5:
            self._cut(slot)

    def _cut(self, slot: Slot) -> None:
        assert slot.process is not None
        broker = self._opened[slot.process].broker
        if broker is not None:
            broker.cut(self.random.random() ** 2 * self._faults.partition_seconds)

    def _purge(self) -> None:
        for queue in step(self.store.get(QueueControl).queues()):
            found = self.broker.find(Names(self.app.settings.namespace).job_queue(queue))
            if found is not None:
                found.ready.clear()

    # --- what an onlooker sees ---

    def unfinished(self) -> list[str]:
        """Who has not come to an end, of those that have one."""
        return [slot.name for slot in self.slots.values() if slot.finite and not slot.ended]

    def next_happening(self) -> float | None:
        """When something happens that anybody waits for; None: things are under way now, or nothing ever will."""
        alive = {slot.process.name for slot in self.slots.values() if slot.process is not None and slot.process.alive}
        store, queues = self.store, step(self.store.get(QueueControl).queues())
        running = self.watch.running(lambda process: process in alive)
        counts = step(store.get(Inspection).counts(queues))
        if any(one.waiting > one.held for one in counts.values()):
            return None
        if sum(one.active for one in counts.values()) != running:
            return None
        now, times = self.clock.now(), []
        for queue in queues:
            for job in step(store.get(Inspection).page(queue, State.DELAYED, offset=0, limit=1, newest_first=False)):
                times.append((job.run_at or 0) - now)
        next_run = step(store.get(Schedules).due(queues, now=now, limit=0)).next_due
        if next_run is not None:
            times.append(next_run - now)
        seconds = [self.loop.time() + left / 1000 for left in times]
        own = self.loop.next_awaited()
        return min([*seconds, own] if own is not None else seconds, default=None)

    def left_over(self) -> list[str]:
        """Jobs that have not ended, schedules aside, and what an audit of the store says."""
        left: list[str] = []
        for queue in step(self.store.get(QueueControl).queues()):
            counts = step(self.store.get(Inspection).counts([queue]))[queue]
            if counts.waiting or counts.delayed or counts.active:
                for state in (State.WAITING, State.DELAYED, State.ACTIVE):
                    page = step(self.store.get(Inspection).page(queue, state, offset=0, limit=10, newest_first=False))
                    left += [f"job {job.id} is {job.state} at dispatch {job.dispatch}" for job in page]
        return left
