"""Whether this process lives, and whether it is ready: the values behind `/live`, `/ready` and `callboard health`.

live    its event loop runs
ready   it lives, every actor of it works, and a message through the broker and a question to the store have come back
        lately

Both are read from the health server's thread, while the loop may stand still: what is read here is replaced, never
changed in place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from ..brokers.contract import Consumer
from ..brokers.errors import BrokerError
from ..brokers.message import Delivery, Message
from ..brokers.topology import Binding, Queue, Topology
from ..metadata.errors import MetadataError
from .connections import Connections
from .loop_watch import LoopWatch
from .supervisor import Child

log = logging.getLogger("callboard.health")

INTERVAL_SECONDS = 5.0
ANSWER_SECONDS = 5.0  # what a round trip may take
MISSED = 3  # so many intervals without a round trip, and the process is not ready


class RoundTrip(Struct, frozen=True, kw_only=True):
    """`at`: `clock.elapsed()` when the last one succeeded, None: none has; `error`: why the latest did not."""

    at: float | None = None
    error: str | None = None


class ActorHealth(Struct, frozen=True, kw_only=True):
    kind: str
    working: bool
    restarts: int


class Report(Struct, frozen=True, kw_only=True):
    """Seconds; `..._ago`: since the last round trip, None: there was none. `reasons`: what is wrong, in words."""

    live: bool
    ready: bool
    reasons: tuple[str, ...]
    process: int
    loop_lag: float
    broker_ago: float | None
    store_ago: float | None
    actors: tuple[ActorHealth, ...]


class Health:
    """Entered in the loop of the actors, it makes a round trip every `interval` seconds, the first one at once."""

    def __init__(self, connections: Connections, watch: LoopWatch, *, interval: float = INTERVAL_SECONDS) -> None:
        self._connections = connections
        self._clock = connections.clock
        self._watch = watch
        self._interval = interval
        self._stuck_after = connections.settings.stuck_after_seconds
        self._children: Sequence[Child] = ()
        self._broker = RoundTrip()
        self._store = RoundTrip()
        self._queue = connections.names.mailbox(secrets.token_hex(16))
        self._consumer: Consumer | None = None
        self._awaited: tuple[bytes, asyncio.Event] = (b"", asyncio.Event())
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None

    def actors(self, children: Sequence[Child]) -> None:
        self._children = children

    def stopping(self) -> None:
        """From now on it is not ready: nothing new is taken on."""
        self._stopping = True

    def report(self) -> Report:
        """May be called from any thread."""
        now, lag = self._clock.elapsed(), self._watch.lag
        broker, store = self._broker, self._store
        actors = tuple(
            ActorHealth(kind=child.kind, working=child.working, restarts=child.restarts) for child in self._children
        )
        dead = [f"the event loop has not run for {lag:.1f} s"] if lag >= self._stuck_after else []
        late = MISSED * self._interval
        missing = [*dead, *_late("broker", broker, now, late), *_late("store", store, now, late)]
        missing += [f"actor {actor.kind} does not work (yet)" for actor in actors if not actor.working]
        if not actors:
            missing.append("no actor was started yet")
        if self._stopping:
            missing.append("it is being stopped")
        return Report(
            live=not dead,
            ready=not missing,
            reasons=tuple(missing),
            process=os.getpid(),
            loop_lag=round(lag, 3),
            broker_ago=None if broker.at is None else round(now - broker.at, 3),
            store_ago=None if store.at is None else round(now - store.at, 3),
            actors=actors,
        )

    async def __aenter__(self) -> Health:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        if self._consumer is not None:
            await self._consumer.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.gather(self._ask_store(), self._ask_broker())
            await self._clock.sleep(self._interval)

    async def _ask_store(self) -> None:
        silence = f"no answer within {ANSWER_SECONDS:g} s"
        self._store = await self._ask("store", self._store, self._connections.store.ping, silence=silence)

    async def _ask_broker(self) -> None:
        silence = f"no message came back within {ANSWER_SECONDS:g} s"
        self._broker = await self._ask("broker", self._broker, self._send_and_receive, silence=silence)

    async def _ask(
        self, server: str, before: RoundTrip, way: Callable[[], Awaitable[object]], *, silence: str
    ) -> RoundTrip:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await way()
        except TimeoutError:
            why = silence
        except (MetadataError, BrokerError) as error:
            why = str(error)
        except Exception as error:  # looks that ended here would leave the process unready for ever
            why = f"{type(error).__name__}: {error}"
            if why != before.error:
                log.error(
                    "the %s could not be asked, which is a fault of ours or a driver's: %s", server, why, exc_info=error
                )
        else:
            return RoundTrip(at=self._clock.elapsed())
        return RoundTrip(at=before.at, error=why)

    async def _open(self) -> None:
        broker, control = self._connections.broker, self._connections.names.control
        await broker.declare(
            Topology(
                queues=(Queue(self._queue, exclusive=True),), bindings=(Binding(self._queue, control, self._queue),)
            )
        )
        self._consumer = await broker.consume(self._queue, self._receive, prefetch=1)

    async def _send_and_receive(self) -> None:
        """Publish to a queue of our own and wait until it is delivered: the way of every command and job."""
        if self._consumer is None:
            await self._open()
        body, arrived = secrets.token_hex(8).encode(), asyncio.Event()
        self._awaited = (body, arrived)
        control = self._connections.names.control
        message = Message(exchange=control, routing_key=self._queue, body=body, persistent=False, mandatory=False)
        await self._connections.broker.publish([message], timeout=ANSWER_SECONDS)
        await arrived.wait()

    def _receive(self, delivery: Delivery) -> None:
        body, arrived = self._awaited
        if delivery.body == body:
            arrived.set()
        delivery.ack()


def _late(server: str, trip: RoundTrip, now: float, limit: float) -> list[str]:
    if trip.at is not None and now - trip.at <= limit:
        return []
    when = "none has come back" if trip.at is None else f"the last came back {now - trip.at:.1f} s ago"
    return [f"no round trip to the {server}: {when}" + (f"; {trip.error}" if trip.error else "")]
