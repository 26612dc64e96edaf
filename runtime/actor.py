"""Actors: what each declares, and what it is given.

    RabbitMQ ──deliveries──> Actor ──operations──> store
        ^                      │
        └──bundles, events─────┘      commands between actors go through `callboard.control` into mailboxes

An actor declares what it consumes, what it publishes and which capabilities of the store it requires; a Stage hands out
just that. It runs until its stage's `stopping` is set. An exception that leaves `run` reaches the supervisor, which
starts a new instance: an actor keeps no state that it could not do without.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, ClassVar, TypeVar
from weakref import WeakMethod

from msgspec import Struct

from ..brokers.contract import Broker, Consumer
from ..brokers.errors import BrokerError
from ..brokers.message import Delivery
from ..brokers.topology import Binding, Names, Queue, Topology
from ..metadata.errors import CapabilityMissing, StoreUnavailable
from .clock import Clock
from .connections import Connections
from .dead_letters import DeadLetters, Letter
from .dispatcher import Dispatcher
from .errors import ConfigurationError
from .metrics import Metrics
from .settings import Settings
from .wire import Command, Malformed, decode_command

if TYPE_CHECKING:
    from .app import Callboard

C = TypeVar("C")
T = TypeVar("T")

MAILBOX_PREFETCH = 64
MAILBOX_LETTERS, MAILBOX_SECONDS = 10, 60.0  # so many are put aside within that time, by each actor; others are counted
HAND_BACK_SECONDS = 5.0  # for the store to take what is handed back, after the grace is over


class Consumes(Struct, frozen=True):
    """A queue an actor reads and how it is bound; `<queue>`, `<boot>` and `<kind>` stand for what is filled in."""

    queue: str
    exchange: str
    routing_keys: tuple[str, ...]


class Options(Struct, frozen=True, kw_only=True):
    """What a deployment tells its actors. `queues` empty: every queue that is known (for a worker: those of its app's
    tasks, in turns). `weights` None: queues are served strictly in their order. `logger` None: an actor logs to
    `callboard.<kind>`."""

    queues: tuple[str, ...] = ()
    weights: tuple[int, ...] | None = None
    concurrency: int = 10
    executor_processes: int = 2
    grace_seconds: float = 25.0
    logger: str | None = None


class Stage:
    """What an actor stands on. `instance` is the actor's own id, new with each start.

    `working`: set by the actor once it consumes, or has made its first round; until then its process is not ready."""

    def __init__(self, actor: type[Actor], app: Callboard, options: Options, *, random: Random) -> None:
        self._actor = actor
        self._connections: Connections = app.connections
        self.app = app
        self.options = options
        self.random = random
        self.instance = secrets.token_hex(16)
        self.mailbox = self.instance  # of the actor's first start: a broker keeps what was declared, see Child
        self.stopping = asyncio.Event()
        self._stopping_since: float | None = None
        self._store_is_away = False  # and that has been said
        self.hurry = asyncio.Event()  # a second signal: hand back at once
        self.working = False
        self.loop_lag: Callable[[], float] = lambda: 0.0  # seconds; the worst since it was asked last
        self.log = logging.getLogger(options.logger or f"callboard.{actor.kind}")

    @property
    def settings(self) -> Settings:
        return self._connections.settings

    @property
    def metrics(self) -> Metrics | None:
        """Where to count; None: nobody wants to know."""
        return self.app.metrics

    @property
    def clock(self) -> Clock:
        return self._connections.clock

    @property
    def names(self) -> Names:
        return self._connections.names

    @property
    def connections(self) -> Connections:
        return self._connections

    def capability(self, capability: type[C]) -> C:
        """A capability that the actor declared; CapabilityMissing, ConfigurationError."""
        if capability not in self._actor.requires:
            kind, wanted = self._actor.kind, capability.__name__
            raise ConfigurationError(f"actor {kind!r} does not declare that it requires {wanted}")
        store = self._connections.store
        if capability not in store.capabilities:
            raise CapabilityMissing(capability=capability.__name__, store=store.scheme, actor=self._actor.kind)
        return store.get(capability)

    def offered(self, capability: type[C]) -> C | None:
        """A capability that the actor declared to use, if the store offers it."""
        if capability not in self._actor.uses:
            kind, wanted = self._actor.kind, capability.__name__
            raise ConfigurationError(f"actor {kind!r} does not declare that it uses {wanted}")
        store = self._connections.store
        return store.get(capability) if capability in store.capabilities else None

    @property
    def dispatcher(self) -> Dispatcher:
        if "jobs" not in self._actor.publishes:
            raise ConfigurationError(f"actor {self._actor.kind!r} does not declare that it publishes jobs")
        return self._connections.dispatcher

    @property
    def broker(self) -> Broker:
        return self._connections.broker

    async def sleep(self, seconds: float, *also: asyncio.Event) -> None:
        """Until `seconds` have passed, or the stage is stopping, or one of the events is set."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.stopping, *also)]
        pause = asyncio.ensure_future(self.clock.sleep(seconds))
        try:
            await asyncio.wait([pause, *waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in (pause, *waits):
                wait.cancel()

    def stop(self, *, hurry: bool) -> None:
        """The grace begins with the first call; `hurry` ends it."""
        if self._stopping_since is None:
            self._stopping_since = self.clock.elapsed()
        self.stopping.set()
        if hurry:
            self.hurry.set()

    @property
    def grace_left(self) -> float:
        """Seconds; all of it while the stage is not stopping."""
        if self.hurry.is_set():
            return 0.0
        if self._stopping_since is None:
            return self.options.grace_seconds
        return max(0.0, self._stopping_since + self.options.grace_seconds - self.clock.elapsed())

    async def within_grace(self, work: Awaitable[object]) -> None:
        """Wait for `work` while the stage is stopping: for what is left of the grace; then it is cancelled."""
        waits = [asyncio.ensure_future(work), asyncio.ensure_future(self.hurry.wait())]
        try:
            await asyncio.wait(waits, timeout=self.grace_left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a store's operation until the store answers, with growing pauses.

        Raises StoreUnavailable only while the stage is stopping, once the grace and HAND_BACK_SECONDS are over: leases
        then say what could not be said here."""
        failures = 0
        while True:  # an outage ends, or somebody stops the process
            try:
                answer = await call()
            except StoreUnavailable as error:
                if failures == 0 and not self._store_is_away:
                    self._store_is_away = True
                    self.log.warning("%s; trying again", error)
                failures += 1
                if self._out_of_time:
                    raise
                await self.clock.sleep(self.backoff(failures, cap=2.0))
            else:
                if self._store_is_away:
                    self._store_is_away = False
                    self.log.warning("the store is back")
                return answer

    @property
    def _out_of_time(self) -> bool:
        if self._stopping_since is None:
            return False
        grace = 0.0 if self.hurry.is_set() else self.options.grace_seconds
        return self.clock.elapsed() >= self._stopping_since + grace + HAND_BACK_SECONDS

    def backoff(self, failures: int, *, base: float = 0.1, cap: float = 5.0) -> float:
        """Seconds to wait after that many failures in a row: growing, with full jitter."""
        return self.random.uniform(0, min(cap, base * 2.0 ** min(failures, 16))) + base / 2


class Actor(ABC):
    kind: ClassVar[str]
    consumes: ClassVar[tuple[Consumes, ...]] = ()
    publishes: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[type, ...]] = ()
    uses: ClassVar[tuple[type, ...]] = ()  # capabilities that it can do without

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @abstractmethod
    async def run(self) -> None:
        """Work until `stage.stopping` is set, then end in order."""

    def receive(self, command: Command) -> None:
        """A command from the mailbox. Must not block; what it does not know it ignores."""
        _ = command

    def hears_again(self) -> None:  # noqa: B027  most actors have nothing to do then
        """The mailbox is back after the broker was away: commands of the time in between are lost. Must not block."""


class Mailbox:
    """An actor's exclusive queue on `callboard.control`; it goes with the connection and comes back with the next.

    Commands only make things quicker, so an actor does not wait for its mailbox: `open` goes on trying by itself. What
    is no command is put aside, by each actor that it reached; a command of a later version is for newer actors, and
    passed over.
    """

    def __init__(self, actor: Actor, *, keys: tuple[str, ...]) -> None:
        self._actor = actor
        self._queue = actor.stage.names.mailbox(actor.stage.mailbox)
        self._keys = ("all", actor.kind, *keys)
        self._consumer: Consumer | None = None
        self._opening: asyncio.Task[None] | None = None
        self._dead = DeadLetters(actor.stage.connections)
        self._putting_aside: set[asyncio.Task[None]] = set()
        self._counted_since = float("-inf")
        self._count = 0

    async def open(self) -> None:
        self._actor.stage.broker.watch(while_it_lives(self._connection_changed))
        try:
            await self._open()
        except BrokerError as error:  # also where it refuses: what an actor can do without it, it does
            self._actor.stage.log.warning("%s; commands reach this actor when it is back", error)
            self._opening = asyncio.get_running_loop().create_task(self._open_later())

    async def bind(self, *keys: str) -> None:
        names = self._actor.stage.names
        await self._actor.stage.broker.declare(
            Topology(
                queues=(Queue(self._queue, exclusive=True),),
                bindings=tuple(Binding(self._queue, names.control, key) for key in keys),
            )
        )

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        for task in self._putting_aside:
            task.cancel()
        if self._consumer is not None:
            await self._consumer.cancel()

    async def _open(self) -> None:
        await self.bind(*self._keys)
        self._consumer = await self._actor.stage.broker.consume(self._queue, self._receive, prefetch=MAILBOX_PREFETCH)

    async def _open_later(self) -> None:
        stage, failures = self._actor.stage, 0
        while self._consumer is None and not stage.stopping.is_set():
            failures += 1
            await stage.sleep(stage.backoff(failures))
            with suppress(BrokerError):
                await self._open()
        self._connection_changed(self._consumer is not None)

    def _connection_changed(self, connected: bool) -> None:
        # A broker tells that it is connected after it has started its consumers again.
        if connected and self._consumer is not None:
            self._actor.hears_again()

    def _receive(self, delivery: Delivery) -> None:
        command = decode_command(delivery.body)
        if isinstance(command, Command):
            self._actor.receive(command)
        elif self._is_one_too_many(command):
            pass
        elif command.later:
            self._actor.stage.log.warning("passed over a command: %s", command.reason)
        else:
            task = asyncio.get_running_loop().create_task(self._put_aside(delivery, command.reason))
            self._putting_aside.add(task)
            task.add_done_callback(self._putting_aside.discard)
            return
        delivery.ack()

    def _is_one_too_many(self, bad: Malformed) -> bool:
        stage = self._actor.stage
        elapsed = stage.clock.elapsed()
        if elapsed - self._counted_since > MAILBOX_SECONDS:
            if self._count > MAILBOX_LETTERS:
                stage.log.warning("dropped %d messages that were no commands", self._count - MAILBOX_LETTERS)
            self._counted_since, self._count = elapsed, 0
        self._count += 1
        if self._count == MAILBOX_LETTERS + 1:
            stage.log.warning(
                "further messages that are no commands are only counted, such as this one: %s", bad.reason
            )
        return self._count > MAILBOX_LETTERS

    async def _put_aside(self, delivery: Delivery, reason: str) -> None:
        letter = Letter(
            queue=None,
            body=delivery.body,
            size=delivery.size,
            reason="malformed",
            detail=f"no command: {reason}",
            delivery=delivery,
        )
        if await self._dead.insist(letter, self._actor.stage):
            delivery.ack()


def while_it_lives(changed: Callable[[bool], None]) -> Callable[[bool], None]:
    """For `Broker.watch`, which ends with the broker: an actor that failed must not be kept, or called, for that.
    `changed`: a bound method."""
    method = WeakMethod(changed)

    def tell(connected: bool) -> None:
        if (living := method()) is not None:
            living(connected)

    return tell
