"""What `callboard doctor` finds out: whether this process could work with its broker and its store, and how well.

Each finding is one sentence, without secrets. Nothing that exists is changed: a message of its own goes through an
exclusive queue, and a worker's row of its own is written to a queue that nobody knows, and removed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from statistics import median

from msgspec import Struct

from ..brokers.contract import Broker
from ..brokers.errors import BrokerError, BrokerUnavailable, TopologyMismatch
from ..brokers.message import Delivery, Message, Receipt
from ..brokers.topology import Binding, Names, Queue, Topology
from ..metadata.contract import Inspection, Passing, QueueControl, Store, Workers
from ..metadata.errors import CapabilityMissing, MetadataError, StoreUnavailable
from ..metadata.schedules import Schedules
from .clock import Clock
from .errors import ConfigurationError
from .registry import make_broker, make_store
from .settings import Settings

OLDEST_RABBITMQ = (3, 10)
TRIPS = 10
SLOW_SECONDS = 0.05
GAP_WARNING, GAP_ERROR = 1.0, 60.0  # seconds between two clocks
FAULTS_SHOWN = 20  # of one queue
LOOK_AGAIN_SECONDS = 1.0


class Level(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    ERROR = "error"


class Finding(Struct, frozen=True):
    """`about`: broker, store, or the name of a queue after `queue:`. `check`: a name that programs may rely on."""

    about: str
    check: str
    level: Level
    message: str


async def diagnose(settings: Settings, clock: Clock, *, audit: bool) -> list[Finding]:
    """`audit`: also read all that is kept of every queue. Raises nothing that has to do with servers."""
    found: list[Finding] = []
    broker: Broker | None = None
    store: Store | None = None
    try:
        broker = make_broker(settings.broker.get_secret_value(), name=f"{settings.namespace} doctor")
        found += [finding async for finding in _of_broker(broker, settings, clock)]
    except (ConfigurationError, BrokerError) as error:
        found.append(Finding("broker", "reachable", Level.ERROR, str(error)))
    try:
        store = make_store(settings.store.get_secret_value(), namespace=settings.namespace)
        found += [finding async for finding in _of_store(store, settings, clock, audit=audit)]
    except (ConfigurationError, MetadataError) as error:
        found.append(Finding("store", "reachable", Level.ERROR, str(error)))
    if broker is not None and store is not None and broker.shared and not store.shared:
        message = "it lives in one process, while the broker serves many: jobs would be lost between them"
        found.append(Finding("store", "shared", Level.ERROR, message))
    return found


# --- the broker ---------------------------------------------------------------------------------------------------


async def _of_broker(broker: Broker, settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    names = Names(settings.namespace, settings.queue_type)
    await broker.open()
    try:
        yield _reachable(broker)
        yield _broker_version(broker)
        try:
            await broker.declare(names.exchanges())
            yield Finding("broker", "permissions", Level.GOOD, f"{names.events} and the other exchanges are declared")
            took = await _messages(broker, names, settings, clock)
            yield _latency("broker", "latency", "a message there and back", took)
            dead = await broker.depth(names.dead)
            yield Finding(
                "broker", "dead-letters", Level.GOOD, f"{0 if dead is None else dead.ready} messages in {names.dead}"
            )
        except BrokerUnavailable as error:
            yield Finding("broker", "reachable", Level.ERROR, str(error))
        except TopologyMismatch as error:
            yield Finding("broker", "topology", Level.ERROR, f"what exists was declared with other arguments: {error}")
        except BrokerError as error:
            yield Finding("broker", "permissions", Level.ERROR, str(error))
    finally:
        await broker.close()


def _reachable(broker: Broker) -> Finding:
    if broker.shared:
        return Finding("broker", "reachable", Level.GOOD, "connected")
    message = f"{broker.scheme}:// lives in one process and ends with it: for development and tests only"
    return Finding("broker", "reachable", Level.WARNING, message)


def _broker_version(broker: Broker) -> Finding:
    parts = tuple(int(part) for part in broker.version.split(".")[:2] if part.isdecimal())
    if broker.scheme == "amqp" and parts and parts < OLDEST_RABBITMQ:
        message = f"RabbitMQ {broker.version} is older than 3.10, the oldest version that is supported"
        return Finding("broker", "version", Level.WARNING, message)
    return Finding("broker", "version", Level.GOOD, f"{broker.scheme}://, version {broker.version}")


async def _messages(broker: Broker, names: Names, settings: Settings, clock: Clock) -> list[float]:
    """Seconds that messages took from here through the events exchange to here. BrokerError: one did not come."""
    boot = secrets.token_hex(16)
    queue, key = names.listener(boot), f"doctor.{boot}"
    arrived = asyncio.Event()

    def receive(delivery: Delivery) -> None:
        delivery.ack()
        arrived.set()

    await broker.declare(
        Topology(queues=(Queue(queue, exclusive=True),), bindings=(Binding(queue, names.events, key),))
    )
    consumer = await broker.consume(queue, receive, prefetch=1, exclusive=True)
    message = Message(exchange=names.events, routing_key=key, body=b"{}", persistent=False)
    took = []
    try:
        for _ in range(TRIPS):
            arrived.clear()
            began = clock.elapsed()
            (receipt,) = await broker.publish([message], timeout=settings.confirm_timeout)
            if receipt is not Receipt.CONFIRMED:
                raise BrokerError(f"a message to the exchange {names.events} was not confirmed: {receipt}")
            async with asyncio.timeout(settings.confirm_timeout):
                await arrived.wait()
            took.append(clock.elapsed() - began)
    except TimeoutError as error:
        raise BrokerError(f"a confirmed message did not come within {settings.confirm_timeout:g} s") from error
    finally:
        await consumer.cancel()
    return took


# --- the store ----------------------------------------------------------------------------------------------------


async def _of_store(store: Store, settings: Settings, clock: Clock, *, audit: bool) -> AsyncIterator[Finding]:
    await store.open()
    try:
        yield Finding("store", "reachable", Level.GOOD, "connected")
        yield Finding("store", "version", Level.GOOD, _version_of(store))
        try:
            async for finding in _of_open_store(store, settings, clock):
                yield finding
            if audit:
                async for finding in _audited(store, clock):
                    yield finding
        except StoreUnavailable as error:
            yield Finding("store", "reachable", Level.ERROR, str(error))
        except CapabilityMissing as error:
            yield Finding("store", "capabilities", Level.ERROR, str(error))
        except MetadataError as error:
            yield Finding("store", "permissions", Level.ERROR, str(error))
    finally:
        await store.close()


async def _of_open_store(store: Store, settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    checks = await store.check()
    for check in checks:
        yield Finding("store", check.name, Level.ERROR if check.refuse else Level.WARNING, check.message)
    if store.durable:
        yield Finding("store", "persistence", Level.GOOD, "an answered write survives a power cut")
    elif not checks:
        yield Finding(
            "store", "persistence", Level.WARNING, "answered writes may be lost with the process or its power"
        )
    queues = await store.get(QueueControl).queues()
    about = f"namespace {settings.namespace}, epoch {store.epoch[:8]}, {len(queues)} queues"
    yield Finding("store", "namespace", Level.GOOD, about)
    yield _latency("store", "latency", "a round trip", [await _timed_ping(store, clock) for _ in range(TRIPS)])
    async with _trial(store) as queue:
        took = []
        for _ in range(TRIPS):
            began = clock.elapsed()
            await store.get(Workers).heartbeat("doctor", [queue], info=b"{}", now=clock.now())
            took.append(clock.elapsed() - began)
        yield Finding("store", "permissions", Level.GOOD, "a worker's row was written and removed")
        yield _latency("store", "write-latency", "a write", took)
        if store.server_time:
            yield await _gap(store, queue, clock)


def _version_of(store: Store) -> str:
    return f"{store.scheme}://, version {store.version}" if store.version else f"{store.scheme}://"


async def _timed_ping(store: Store, clock: Clock) -> float:
    began = clock.elapsed()
    await store.ping()
    return clock.elapsed() - began


@asynccontextmanager
async def _trial(store: Store) -> AsyncIterator[str]:
    """A queue that nobody knows, forgotten afterwards."""
    queue = f"doctor-{secrets.token_hex(8)}"
    try:
        yield queue
    finally:
        await store.get(Workers).leave("doctor", [queue])
        await store.get(QueueControl).forget(queue)


async def _gap(store: Store, queue: str, clock: Clock) -> Finding:
    """Of the two clocks, by the question that took the shortest time."""
    best: tuple[float, float] | None = None
    for _ in range(TRIPS):
        began, now = clock.elapsed(), clock.now()
        due = await store.get(Schedules).due([queue], now=now, limit=1)
        took = clock.elapsed() - began
        best = min(best or (took, due.gap), (took, due.gap))
    assert best is not None
    took, gap = best[0], best[1] / 1000
    ahead = f"the store's clock is {abs(gap):.3f} s {'ahead of' if gap > 0 else 'behind'} this machine's"
    if abs(gap) <= GAP_WARNING + took:
        return Finding("store", "clock", Level.GOOD, ahead)
    level = Level.ERROR if abs(gap) > GAP_ERROR else Level.WARNING
    return Finding("store", "clock", level, f"{ahead}: delayed jobs and schedules come at the later of the two times")


async def _audited(store: Store, clock: Clock) -> AsyncIterator[Finding]:
    """Faults that are there in two looks: one that is gone a second later was a job on its way."""
    queues = await store.get(QueueControl).queues()
    inspection = store.get(Inspection)
    for queue in queues:
        faults = await inspection.audit(queue)
        if faults:
            await clock.sleep(LOOK_AGAIN_SECONDS)
            again = set(await inspection.audit(queue))
            faults = sorted((fault for fault in faults if fault in again), key=_level)  # errors first
        about = f"queue:{queue}"
        for fault in faults[:FAULTS_SHOWN]:
            yield Finding(about, "audit", _level(fault), fault)
        if rest := faults[FAULTS_SHOWN:]:
            yield Finding(about, "audit", _level(rest[0]), f"and {len(rest)} more of the kind")
        if not faults:
            yield Finding(about, "audit", Level.GOOD, await _in_order(inspection, queue))
    if not queues:
        yield Finding("store", "audit", Level.GOOD, "no queue is known in this namespace")


def _level(fault: str) -> Level:
    return Level.WARNING if isinstance(fault, Passing) else Level.ERROR


async def _in_order(inspection: Inspection, queue: str) -> str:
    counts = (await inspection.counts([queue]))[queue]
    open_jobs = counts.waiting + counts.delayed + counts.waiting_children + counts.active
    ended = counts.completed + counts.failed + counts.cancelled + counts.expired
    return f"in order: {open_jobs} jobs to do, {counts.unpublished} of them in the outbox, {ended} ended"


def _latency(about: str, check: str, what: str, took: Sequence[float]) -> Finding:
    middle, worst = median(took), max(took)
    message = f"{what} takes {middle * 1000:.1f} ms (the slowest of {len(took)}: {worst * 1000:.1f} ms)"
    level = Level.WARNING if middle > SLOW_SECONDS else Level.GOOD
    return Finding(about, check, level, message)
