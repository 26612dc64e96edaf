"""Actors of one process: checked against the store, started under a supervisor, stopped by signals.

The first SIGTERM or SIGINT stops in order: consuming ends, running jobs have their grace. A second one hands them back
at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, nullcontext
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from ..metadata.contract import Inspection
from ..metadata.errors import CapabilityMissing
from .actor import Actor, Options, Stage
from .errors import ConfigurationError
from .health import Health
from .health_server import HealthServer
from .loop_watch import LoopWatch
from .metrics import Metrics
from .otlp_metrics import OtlpMetrics
from .queue_gauges import QueueGauges
from .readings import Readings
from .store_watch import StoreWatch
from .supervisor import Supervisor

if TYPE_CHECKING:
    from .app import Callboard

log = logging.getLogger("callboard")


def seeded_random() -> Random:
    return Random(SystemRandom().getrandbits(64))


async def in_own_thread(end: Callable[[], None]) -> None:
    """As `asyncio.to_thread`, also while handlers have taken all threads of the loop, for as long as they like."""
    with ThreadPoolExecutor(1) as own:
        await asyncio.get_running_loop().run_in_executor(own, end)


class Deployment:
    """`run` opens the app, runs the actors until `stop`, and closes it. `watched`: threads of their own tell how late
    the event loop is, answer to `health_port`, where that is set, and export metrics; for processes that do nothing
    else."""

    def __init__(
        self,
        app: Callboard,
        actors: Sequence[type[Actor]],
        options: Options,
        *,
        random: Random | None = None,
        watched: bool = False,
    ) -> None:
        self.app = app
        self.actors = list(actors)
        self.options = options
        self._random = random or seeded_random()
        self._supervisor: Supervisor | None = None
        self._stops = 0
        self._watched = watched
        self._watch: LoopWatch | None = None
        self._health: Health | None = None
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Raises CapabilityMissing before anything is started, GaveUp, and what opening raises."""
        async with self.app, AsyncExitStack() as watching:
            self._check_capabilities()
            if self._watched:
                await self._be_watched(watching)
            await self.app.schedule_all()
            self._supervisor = Supervisor(self.app, self._make_stage, self.actors, self._random)
            if self._health is not None:
                self._health.actors(self._supervisor.children)
            for _ in range(self._stops):
                self._supervisor.stop()
            self.started.set()
            log.info("connected; running %s", ", ".join(actor.kind for actor in self.actors))
            works = any(actor.kind == "worker" for actor in self.actors)
            async with self.app.local_schedules.served() if works else nullcontext():
                await self._supervisor.run()

    def stop(self) -> None:
        """Once: in order. Twice: hand back at once."""
        self._stops += 1
        if self._health is not None:
            self._health.stopping()
        if self._supervisor is not None:
            self._supervisor.stop(hurry=self._stops > 1)

    @property
    def stopping(self) -> bool:
        return self._stops > 0

    def stop_on_signals(self) -> None:
        """In the main thread's running loop, before `run`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)

    def _signalled(self, name: str) -> None:
        log.info("%s: %s", name, "stopping" if self._stops == 0 else "handing back what runs")
        self.stop()

    def _make_stage(self, actor: type[Actor]) -> Stage:
        stage = Stage(actor, self.app, self.options, random=Random(self._random.getrandbits(64)))
        if self._watch is not None:
            stage.loop_lag = self._watch.take_worst
        return stage

    async def _be_watched(self, watching: AsyncExitStack) -> None:
        settings, clock, metrics = self.app.settings, self.app.clock, self.app.metrics
        shows, exports = settings.metrics in ("prometheus", "both"), settings.metrics in ("otlp", "both")
        if shows and settings.health_port is None:
            raise ConfigurationError(
                f"metrics={settings.metrics!r}: Prometheus is answered at the health port, and there is none; give "
                "--health-port, or set CALLBOARD_HEALTH_PORT"
            )
        watch = LoopWatch(
            clock, warn_after=settings.lease_seconds / 4, observe=None if metrics is None else metrics.loop_lag
        )
        self._watch = await watching.enter_async_context(watch)
        if any(actor.kind == "stalled-recovery" for actor in self.actors):
            connections = self.app.connections
            await watching.enter_async_context(StoreWatch(connections.store, clock, known=connections.found))
        if settings.health_port is None and not exports:
            return
        self._health = health = Health(self.app.connections, watch)
        await watching.enter_async_context(health)
        readings = None if metrics is None else self._readings(metrics, health, watching)
        if settings.health_port is not None:
            server = HealthServer(
                health.report,
                host=settings.health_host,
                port=settings.health_port,
                metrics=readings.exposition if readings is not None and shows else None,
            )
            watching.enter_context(server)
            paths = "/live, /ready and /metrics" if shows else "/live and /ready"
            log.info("health: http://%s:%d%s", settings.health_host, server.port, paths)
        if readings is not None and exports:
            service = "callboard " + " ".join(actor.kind for actor in self.actors)
            otlp = OtlpMetrics(readings.read, service=service)
            otlp.start()
            watching.push_async_callback(in_own_thread, otlp.stop)

    def _readings(self, metrics: Metrics, health: Health, watching: AsyncExitStack) -> Readings:
        """What is kept in the queues is told by one process: that of the actor which looks after all of them."""
        app, store = self.app, self.app.connections.store
        asks = any(actor.kind == "stalled-recovery" for actor in self.actors) and Inspection in store.capabilities
        if not asks:
            return Readings(metrics, health.report, None)
        ours = {task.declared.queue for task in app.tasks.values()}
        gauges = QueueGauges(store, app.clock, queues=self.options.queues, preferred=ours.__contains__)
        watching.push_async_callback(gauges.close)
        return Readings(metrics, health.report, gauges)

    def _check_capabilities(self) -> None:
        store = self.app.connections.store
        for actor in self.actors:
            for capability in actor.requires:
                if capability not in store.capabilities:
                    raise CapabilityMissing(capability=capability.__name__, store=store.scheme, actor=actor.kind)
