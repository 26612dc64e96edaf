"""What running actors tell in numbers, on GET /metrics and by OTLP."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from callboard import Callboard, ConfigurationError, Context
from callboard.runtime.actor import Options
from callboard.runtime.deployment import Deployment
from callboard.runtime.registry import find_actor
from otlp import Receiver, receiving
from path.place import Place

KINDS = ("worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention")

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
        yield receiver


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def deployed(app: Callboard, *kinds: str) -> AsyncIterator[None]:
    deployment = Deployment(app, [find_actor(kind) for kind in kinds], Options(), watched=True)
    running = asyncio.create_task(deployment.run())
    started = asyncio.create_task(deployment.started.wait())
    await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        started.cancel()
        deployment.stop()
        await running


def scraped(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


async def test_what_actors_do_is_on_their_metrics_page_and_reaches_a_collector(
    place: Place, receiver: Receiver
) -> None:
    port = free_port()
    async with place.open(metrics="both", health_port=port) as app:

        @app.task(name="odd", queue="jobs", retries=1, backoff=0)
        async def odd(number: int, ctx: Context) -> int:
            if number == 1 and ctx.attempt == 1:
                raise ValueError("not yet")
            return number

        @app.every(1, queue="jobs", name="tick")
        async def tick() -> None: ...

        await app.queue("paused").add("odd", [1])
        await app.queue("paused").pause()
        async with deployed(app, *KINDS):
            for number in range(5):
                await odd.enqueue(number)
            await odd.options(delay=0.2).enqueue(9)
            assert await app.queue("jobs").add("stranger", []) is not None
            async with asyncio.timeout(60):
                while True:
                    samples = await asyncio.to_thread(scraped, port)
                    if of(samples, "callboard_run_seconds_count", queue="jobs", task="odd") >= 7 and all(
                        of(samples, name)
                        for name in ("callboard_scanner_lag_seconds_count", "callboard_scheduler_lag_seconds_count")
                    ):
                        break
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(60):
                while not any(point.name == "callboard.scheduler.lag" for point in receiver.points):
                    await asyncio.sleep(0.05)
            await app.queue("jobs").remove_repeatable("tick")

    runs = {"queue": "jobs", "task": "odd"}
    assert of(samples, "callboard_runs_total", **runs, outcome="completed") == 6
    assert of(samples, "callboard_runs_total", **runs, outcome="retried") == 1
    assert of(samples, "callboard_wait_seconds_count", **runs) == 7
    assert of(samples, "callboard_runs_total", queue="jobs", task="other", outcome="parked") >= 1  # each 10 s
    assert of(samples, "callboard_jobs", queue="paused", state="waiting") == 1
    assert of(samples, "callboard_queue_paused", queue="paused") == 1
    assert of(samples, "callboard_oldest_waiting_seconds", queue="paused") > 0
    assert of(samples, "callboard_loop_lag_seconds_count") > 0
    assert {kind: of(samples, "callboard_actor_working", actor=kind) for kind in KINDS} == dict.fromkeys(KINDS, 1.0)

    latest = {(point.name, frozenset(point.attributes.items())): point for point in receiver.points}
    about = {"messaging.destination.name": "jobs", "callboard.task": "odd"}
    process = {"messaging.system": "rabbitmq", "messaging.operation.name": "process"}
    run = latest["messaging.process.duration", frozenset({**about, **process}.items())]
    assert (run.value, run.unit) == (7, "s")
    assert run.service == "callboard " + " ".join(KINDS)
    retried = latest["callboard.runs", frozenset({**about, "callboard.outcome": "retried"}.items())]
    assert retried.value == 1
    waiting = {"messaging.destination.name": "paused", "callboard.state": "waiting"}
    assert latest["callboard.jobs", frozenset(waiting.items())].value == 1


@pytest.mark.parametrize(
    "place", ["rabbitmq+redis", "rabbitmq+mongodb"], indirect=True
)  # in memory there is one process
async def test_each_actor_tells_its_own_and_one_of_them_what_is_kept(place: Place) -> None:
    ports = {kind: free_port() for kind in KINDS}
    async with place.open() as app:
        await app.queue("jobs").add("nobody", [], delay=60)
        for kind, port in ports.items():
            one = place.app(metrics="prometheus", health_port=port)
            one.task(name="t", queue="jobs")(_nothing)
            async with deployed(one, kind):
                async with asyncio.timeout(60):
                    while not of(samples := await asyncio.to_thread(scraped, port), "callboard_ready"):
                        await asyncio.sleep(0.05)
            assert of(samples, "callboard_actor_working", actor=kind) == 1
            assert of(samples, "callboard_jobs", queue="jobs", state="delayed") == (kind == "stalled-recovery")
        await app.queue("jobs").drain(include_delayed=True)


async def _nothing() -> None: ...


async def test_there_is_no_page_where_nobody_asked_for_one(place: Place) -> None:
    port = free_port()
    app = place.app(health_port=port)
    async with deployed(app, "retention"):
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            await asyncio.to_thread(scraped, port)
        with missing.value as answer:
            assert b"CALLBOARD_METRICS=prometheus" in answer.read()
    assert app.metrics is None


async def test_metrics_for_prometheus_need_a_port(place: Place) -> None:
    with pytest.raises(ConfigurationError, match=r"--health-port.*CALLBOARD_HEALTH_PORT"):
        async with deployed(place.app(metrics="prometheus"), "retention"):
            pass
