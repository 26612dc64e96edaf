"""`callboard up` and `callboard run`: actors in this process, or in several of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from msgspec import Struct

from ..actor import Actor, Options
from ..app import Callboard
from ..deployment import Deployment
from ..errors import ConfigurationError
from ..job_id import check_queue
from ..registry import actor_names, find_actor, make_store
from ..settings import Settings
from ..tracing import export_spans
from ..urls import masked, scheme_of
from .failures import EXPECTED, FAILURE, OK, code_of, ending, logged_ending, message_of
from .logs import LogFormat, LogLevel, log_to
from .options import AppReference, Broker, Given, Namespace, StoreUrl, make_app
from .processes import Processes

log = logging.getLogger("callboard")

MAX_WEIGHT = 1000
LEAVE_SECONDS = 5.0


class MetricsChoice(StrEnum):
    OFF = "off"
    PROMETHEUS = "prometheus"
    OTLP = "otlp"
    BOTH = "both"


Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        "-q",
        metavar="NAME[=WEIGHT]",
        help="Serve this queue; may be repeated. Without weights, an earlier queue's jobs go first; with them, each "
        "queue gets its share. Default: a worker serves the queues of its app's tasks in turns; other actors all.",
    ),
]
Concurrency = Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Jobs a worker runs at a time.")]
Grace = Annotated[
    float,
    typer.Option(
        min=0, max=24 * 3600, metavar="SECONDS", help="Seconds that running jobs have to end after a stop signal."
    ),
]
ExecutorProcesses = Annotated[
    int, typer.Option(min=1, max=1000, metavar="N", help='Processes for tasks with executor="process", per worker.')
]
HealthPort = Annotated[
    int | None,
    typer.Option(
        "--health-port",
        min=1,
        max=65535,
        metavar="PORT",
        help="Answer /live and /ready there, see `callboard health`; with --processes, the next ports too, one each.",
    ),
]
HealthHost = Annotated[
    str | None,
    typer.Option("--health-host", metavar="ADDRESS", help="Where to listen for them. Default: 127.0.0.1."),
]
Level = Annotated[
    LogLevel, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error; to stderr.")
]

Format = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        metavar="FORMAT",
        envvar="CALLBOARD_LOG_FORMAT",
        help="text; json: one object a line, to stderr.",
    ),
]
MetricsWay = Annotated[
    MetricsChoice | None,
    typer.Option(
        "--metrics",
        metavar="WAY",
        help="prometheus: GET /metrics on the health port; otlp: exported as the OTEL_* variables say; both; "
        "off. Default: CALLBOARD_METRICS, or off.",
    ),
]

_ENDINGS = """

    The first SIGTERM or Ctrl-C ends in order: nothing new starts, running jobs have --grace seconds. A second one hands
    running jobs back at once; they run again elsewhere.

    Exit codes: 0 ended in order, 2 usage or configuration, 69 store or broker unavailable, 70 an actor failed too
    often.
"""


def up(
    app: Annotated[str, typer.Argument(metavar="APP", help="The app, such as myservice.jobs:app.")],
    queue: Queues = None,
    concurrency: Concurrency = 10,
    grace: Grace = 25.0,
    executor_processes: ExecutorProcesses = 2,
    health_port: HealthPort = None,
    health_host: HealthHost = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = None,
    metrics: MetricsWay = None,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Run every actor in this process.

    \b
    callboard up myservice.jobs:app
    callboard up myservice.jobs:app --queue emails --concurrency 50
    """
    given = Given(
        broker=broker, store=store, namespace=namespace, health_port=health_port, health_host=health_host,
        log_format=log_format, metrics=metrics,
    )  # fmt: skip

    def work() -> None:
        options = _options(queue, concurrency, grace, executor_processes)
        made = _made(app, given, log_level)
        serve(made, _served_by_store(actor_names(), made.settings), options)

    _logging(work, log_level, log_format)


def run(
    actors: Annotated[list[str], typer.Argument(metavar="ACTOR", help="Such as worker; see `callboard wiring`.")],
    app: AppReference = None,
    queue: Queues = None,
    concurrency: Concurrency = 10,
    processes: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Run this command in so many processes.")
    ] = 1,
    grace: Grace = 25.0,
    executor_processes: ExecutorProcesses = 2,
    health_port: HealthPort = None,
    health_host: HealthHost = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = None,
    metrics: MetricsWay = None,
    broker: Broker = None,
    store: StoreUrl = None,
    namespace: Namespace = None,
) -> None:
    """Run these actors in this process, or in several.

    \b
    callboard run worker --app myservice.jobs:app -q emails --concurrency 50
    callboard run worker --app myservice.jobs:app -q emails=3 -q reports=1
    callboard run delayed-scanner repeatable-scheduler stalled-recovery retention

    A worker needs --app; other actors take the app's settings where it is given. Flags go before the app's own
    settings.

    With --processes, a small parent passes signals on and restarts nothing: a process that ends with another code than
    0 ends the others in order, and its code is the parent's.
    """
    given = Given(
        broker=broker, store=store, namespace=namespace, health_port=health_port, health_host=health_host,
        log_format=log_format, metrics=metrics,
    )  # fmt: skip

    def work() -> None:
        _check_actors(actors, app)
        options = _options(queue, concurrency, grace, executor_processes)
        if processes == 1:
            made = _made(app, given, log_level)
            if "worker" not in actors and scheme_of(made.settings.broker.get_secret_value()) == "memory":
                _refuse_memory(
                    made.settings, f"{', '.join(actors)} would never have anything to do", "name a worker beside"
                )
            serve(made, actors, options)
            return

        def work_of_one(number: int, lifeline: int, started: Callable[[], None]) -> int:
            def child() -> None:
                made = _made(app, given, log_level)
                if number and made.settings.health_port is not None:
                    made.configure(health_port=made.settings.health_port + number)
                _refuse_memory(
                    made.settings, f"{processes} processes would not see one another's jobs", "leave --processes out"
                )
                serve(made, actors, options, parent=Parent(lifeline, started))

            return _ending_of(log_format)(child)

        code = Processes(work_of_one).run(processes)
        if code != OK:
            raise typer.Exit(code)

    _logging(work, log_level, log_format)


up.__doc__ = f"{up.__doc__}{_ENDINGS}"
run.__doc__ = f"{run.__doc__}{_ENDINGS}"


class Parent(Struct, frozen=True):
    """What a child process has of its parent, see processes.py. `lifeline`: the end of a pipe that closes when the
    parent is gone; `started`: to be called once the app is connected."""

    lifeline: int
    started: Callable[[], None]


def serve(app: Callboard, kinds: Sequence[str], options: Options, *, parent: Parent | None = None) -> None:
    """Until a signal ends it, or the parent is gone."""
    actors: list[type[Actor]] = [find_actor(kind) for kind in kinds]
    deployment = Deployment(app, actors, options, watched=True)
    _announce(app.settings, kinds)
    flush = export_spans("callboard " + " ".join(kinds)) if app.settings.tracing else None
    _set_aside()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code, told = FAILURE, "ended in order"
        try:
            runner.run(_run(deployment, parent))
            code = OK
        except EXPECTED as error:
            code, told = code_of(error), message_of(error)
            raise
        finally:
            # Closing the runner waits for every task, also for a handler that defies its interruption for ever.
            leaving = threading.Timer(LEAVE_SECONDS, _leave, [code, told])
            leaving.daemon = True
            leaving.start()
    leaving.cancel()
    if flush is not None:
        flush()
    log.info("ended in order")


def _logging(work: Callable[[], None], level: LogLevel, form: LogFormat | None) -> None:
    log_to(level=level, form=form or LogFormat.TEXT)
    if form is not LogFormat.JSON:
        work()
    elif (code := logged_ending(work)) != OK:
        raise typer.Exit(code)


def _ending_of(form: LogFormat | None) -> Callable[[Callable[[], None]], int]:
    return logged_ending if form is LogFormat.JSON else ending


def _made(reference: str | None, given: Given, level: LogLevel) -> Callboard:
    """The app; from now on what is logged has the form that its settings ask for."""
    app = make_app(reference, given)
    log_to(level=level, form=app.settings.log_format, span_ids=None if app.tracing is None else app.tracing.ids)
    return app


def _served_by_store(kinds: Sequence[str], settings: Settings) -> list[str]:
    """Those that find in the store what they require; `up` runs all that can run, `run` what it was told to."""
    store = make_store(settings.store.get_secret_value(), namespace=settings.namespace)
    served = []
    for kind in kinds:
        missing = [one.__name__ for one in find_actor(kind).requires if one not in store.capabilities]
        if missing:
            log.warning("not started: %s; the store %s:// does not offer %s", kind, store.scheme, ", ".join(missing))
        else:
            served.append(kind)
    return served


def _leave(code: int, told: str) -> None:
    log.error("a handler does not end though it was interrupted; leaving without it, its job was handed back")
    log.log(logging.INFO if code == OK else logging.ERROR, "%s", told)
    logging.shutdown()
    os._exit(code)


async def _run(deployment: Deployment, parent: Parent | None) -> None:
    deployment.stop_on_signals()
    loop = asyncio.get_running_loop()

    async def when_started() -> None:
        await deployment.started.wait()
        _set_aside()  # what the connections needed, too
        if parent is not None:
            parent.started()

    def orphaned() -> None:
        if parent is not None:
            loop.remove_reader(parent.lifeline)
        log.warning("the parent process is gone; stopping")
        deployment.stop()

    if parent is not None:
        loop.add_reader(parent.lifeline, orphaned)
    starting = asyncio.create_task(when_started())
    try:
        await deployment.run()
    finally:
        starting.cancel()


def _set_aside() -> None:
    """What has been imported stays: looking through it for garbage would stop the loop for 30 ms now and then."""
    gc.collect()
    gc.freeze()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed; None: asyncio's own."""
    try:
        import uvloop  # only CPython outside Windows has it
    except ImportError:
        return None
    return uvloop.new_event_loop


def _announce(settings: Settings, kinds: Sequence[str]) -> None:
    urls = [settings.broker.get_secret_value(), settings.store.get_secret_value()]
    log.info(
        "%s on %s and %s, namespace %s, process %d",
        ", ".join(kinds),
        *map(masked, urls),
        settings.namespace,
        os.getpid(),
    )
    for url in urls:
        if scheme_of(url) == "memory":
            log.warning("memory:// lives in this process: other processes can neither enqueue here nor look in")
            return


def _check_actors(actors: Sequence[str], app: str | None) -> None:
    for kind in actors:
        find_actor(kind)
        if actors.count(kind) > 1:
            raise ConfigurationError(f"actor {kind!r} is named twice; for more of it use --processes")
    if "worker" in actors and app is None:
        raise ConfigurationError("a worker needs the app whose tasks it runs: --app package.module:app")


def _refuse_memory(settings: Settings, reason: str, remedy: str) -> None:
    for name, url in (("store", settings.store), ("broker", settings.broker)):
        if scheme_of(url.get_secret_value()) == "memory":
            raise ConfigurationError(
                f"the {name} is memory://, which lives in one process: {reason}; set CALLBOARD_{name.upper()}, or "
                f"{remedy}"
            )


def _options(queues: Sequence[str] | None, concurrency: int, grace: float, executor_processes: int) -> Options:
    names: list[str] = []
    weights: list[int | None] = []
    for text in queues or ():
        name, weight = _queue(text)
        if name in names:
            raise ConfigurationError(f"--queue {name} is given twice")
        names.append(name)
        weights.append(weight)
    return Options(
        queues=tuple(names),
        weights=tuple(weight or 1 for weight in weights) if any(weights) else None,
        concurrency=concurrency,
        executor_processes=executor_processes,
        grace_seconds=grace,
    )


def _queue(text: str) -> tuple[str, int | None]:
    name, equals, weight = text.partition("=")
    check_queue(name)
    if not equals:
        return name, None
    if not weight.isdecimal() or not 1 <= int(weight) <= MAX_WEIGHT:
        raise ConfigurationError(f"--queue {text}: the weight must be a whole number from 1 to {MAX_WEIGHT}")
    return name, int(weight)
