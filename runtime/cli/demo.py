"""`callboard demo`: everything in one process, in memory, to look at."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from random import Random, SystemRandom
from typing import Annotated, Protocol

import typer
from rich.live import Live
from rich.text import Text

from ...brokers.message import Delivery
from ...brokers.topology import Binding, Queue, Topology
from ...metadata.contract import Counts, Inspection, QueueControl
from ..actor import Options
from ..app import Callboard
from ..deployment import Deployment
from ..registry import find_actor
from ..wire import Event, decode_events
from .demo_report import Report, closing_line, closing_table, line_of, live_view, progress_line
from .demo_tasks import LONGEST_TASK_SECONDS, SampleApp
from .logs import LogLevel, log_to
from .options import AsJson
from .run import loop_factory
from .screen import console, print_json, show

ACTORS = ("worker", "delayed-scanner", "stalled-recovery", "retention")
REFRESH_SECONDS = 0.125
PREFETCH = 1000

CountsByQueue = Mapping[str, Counts]


class Show(Protocol):
    """Where the demo is to be seen while it runs."""

    def event(self, report: Report, event: Event) -> None: ...

    def refresh(self, report: Report, counts: CountsByQueue, *, now: int, stopping: bool) -> None: ...


class LiveShow:
    def __init__(self, live: Live) -> None:
        self._live = live

    def event(self, report: Report, event: Event) -> None:
        """Drawn with the next refresh."""

    def refresh(self, report: Report, counts: CountsByQueue, *, now: int, stopping: bool) -> None:
        self._live.update(live_view(report, counts, now=now, stopping=stopping), refresh=True)


class PlainShow:
    """A line for each event, and one a second for how it stands."""

    def __init__(self) -> None:
        self._told = -1

    def event(self, report: Report, event: Event) -> None:
        print(line_of(report, event), flush=True)

    def refresh(self, report: Report, counts: CountsByQueue, *, now: int, stopping: bool) -> None:
        second = int(report.since(now))
        if second != self._told:
            self._told = second
            print(progress_line(report, counts, now=now), flush=True)


class SilentShow:
    def event(self, report: Report, event: Event) -> None: ...

    def refresh(self, report: Report, counts: CountsByQueue, *, now: int, stopping: bool) -> None: ...


def demo(
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, metavar="SECONDS", help="How long it runs.")] = 8.0,
    plain: Annotated[bool, typer.Option("--plain", help="A plain log, as where stdout is no terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything in one process, in memory, with a live view.

    A worker, the delayed scanner, the recovery of stalled jobs and retention run under one supervisor, with a sample
    app whose tasks succeed, fail, are retried, wait for their time and repeat. Needs no server. Ends by itself, or in
    order with Ctrl-C; a table says what ran. Exit code 0.
    """
    screen = console()
    if as_json or plain or not screen.is_terminal:
        log_to(level=LogLevel.ERROR)
        report, counts, beats = _perform(seconds, SilentShow() if as_json else PlainShow())
    else:
        with Live(console=screen, auto_refresh=False, transient=True) as live:
            log_to(sys.stderr, level=LogLevel.ERROR)  # Live has put itself in its place, and keeps records above
            report, counts, beats = _perform(seconds, LiveShow(live))
    if as_json:
        print_json({**report.to_json(counts), "beats": beats})
        return
    show("", closing_table(report), "", Text(closing_line(counts, beats=beats), style="dim"))


def _perform(seconds: float, stage: Show) -> tuple[Report, CountsByQueue, int]:
    sample = SampleApp(Random(SystemRandom().getrandbits(64)))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        report, counts = runner.run(_play(sample, seconds, stage))
    return report, counts, sample.beats


async def _play(sample: SampleApp, seconds: float, stage: Show) -> tuple[Report, CountsByQueue]:
    app = sample.app
    options = Options(concurrency=12, grace_seconds=LONGEST_TASK_SECONDS + 0.3)
    deployment = Deployment(app, [find_actor(kind) for kind in ACTORS], options)
    deployment.stop_on_signals()
    async with app:
        report = Report(began=app.clock.now(), seconds=seconds)
        await _watch_events(app, report, stage)
        running = asyncio.create_task(deployment.run())
        producing = asyncio.create_task(_produce(sample))
        try:
            while not running.done():
                now = app.clock.now()
                over = report.since(now) >= seconds or deployment.stopping
                if over:
                    producing.cancel()
                if over and not deployment.stopping:
                    deployment.stop()
                stage.refresh(report, await _counts(app), now=now, stopping=deployment.stopping)
                await asyncio.wait({running}, timeout=REFRESH_SECONDS)
        finally:
            producing.cancel()
        await running
        await asyncio.wait({producing})
        if not producing.cancelled() and (error := producing.exception()) is not None:
            raise error
        await app.connections.dispatcher.flush()  # the events of what ended last
        return report, await _counts(app)


async def _produce(sample: SampleApp) -> None:
    await sample.start()
    while True:
        await sample.enqueue_one()
        await sample.app.clock.sleep(sample.pause_before_next())


async def _watch_events(app: Callboard, report: Report, stage: Show) -> None:
    broker, names = app.connections.broker, app.connections.names
    queue = names.listener("demo")
    await broker.declare(
        Topology(queues=(Queue(queue, exclusive=True),), bindings=(Binding(queue, names.events, "#"),))
    )

    def receive(delivery: Delivery) -> None:
        for event in decode_events(delivery.body):
            report.add(event)
            stage.event(report, event)
        delivery.ack()

    await broker.consume(queue, receive, prefetch=PREFETCH)


async def _counts(app: Callboard) -> CountsByQueue:
    store = app.connections.store
    return await store.get(Inspection).counts(await store.get(QueueControl).queues())
