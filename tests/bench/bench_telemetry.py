"""What telling costs: CPU us of a process for an empty job, with and without metrics and traces, in one run.

    tests/run tests/bench/bench_telemetry.py -m bench -s

One process, one worker after another in it: every round runs each way once, in an order that moves on, and ratios are
to the round's own "off". Jobs come out of bundles, and their handler does nothing, so that what is told is as large a
part of the whole as it can be. Spans go to an exporter that drops them.

On a machine with other work the rounds differ by more than what is looked for; so the calls that telling adds to a job
are also timed by themselves, the best of many short loops each.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import pytest
from msgspec import Struct
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from callboard import Callboard
from callboard.actors.worker import Worker
from callboard.metadata.contract import MAX_BATCH, Claimed, Ending, Outcome, Verdict
from callboard.runtime.actor import Options
from callboard.runtime.cli.run import loop_factory
from callboard.runtime.clock import SystemClock
from callboard.runtime.context import RUNNING
from callboard.runtime.deployment import Deployment
from callboard.runtime.metrics import Metrics
from callboard.runtime.options import CallOptions
from callboard.runtime.prometheus import exposition
from callboard.runtime.run import Run
from callboard.runtime.tracing import Tracing, make_provider
from callboard.runtime.wire import Ticket

JOBS = int(os.environ.get("BENCH_JOBS", "5000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
QUEUE = "bench"
LOOPS, CALLS = 200, 200
WARM = 0.1  # the first part of the jobs is not counted
WANTED = 1.05


class Way(Struct, frozen=True, kw_only=True):
    """`sampled`: which part of the traces that runs begin; None: no tracing. `flags`: of the traceparent that each job
    has, one of its own; None: none."""

    name: str
    metrics: str = "off"
    sampled: float | None = None
    flags: int | None = None
    wanted: bool = False


OFF = Way(name="off")
WAYS = (
    OFF,
    Way(name="off, once more"),
    Way(name="metrics", metrics="prometheus", wanted=True),
    Way(name="traces, jobs of traces that are not sampled", sampled=1.0, flags=0, wanted=True),
    Way(name="traces that runs begin, none sampled", sampled=0.0, wanted=True),
    Way(name="traces that runs begin, 1 % sampled", sampled=0.01, wanted=True),
    Way(name="traces, every run sampled", sampled=1.0, flags=1),
)


class Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


def tracing_of(way: Way) -> Tracing | None:
    if way.sampled is None:
        return None
    provider = make_provider("bench", sampler=ParentBasedTraceIdRatio(way.sampled))
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return Tracing(provider)


async def enqueue(app: Callboard, flags: int | None) -> None:
    numbers = range(JOBS)
    for start in range(0, JOBS, MAX_BATCH):
        new = []
        for number in numbers[start : start + MAX_BATCH]:
            ids = (secrets.randbits(128) | 1, secrets.randbits(64) | 1)
            about = trace.SpanContext(*ids, is_remote=True, trace_flags=trace.TraceFlags(flags or 0))
            with trace.use_span(trace.INVALID_SPAN if flags is None else trace.NonRecordingSpan(about)):
                new.append(app.new_job("mark", [number, "x" * 200], {}, CallOptions(), queue=QUEUE))
        await app.connections.producer.enqueue(new)


async def cost(way: Way, tracing: Tracing | None, *, broker: str, store: str) -> float:
    """CPU us of this process for each job, from the WARM part of them to the last."""
    app = Callboard(broker=broker, store=store, namespace=f"bench-{secrets.token_hex(4)}", metrics=way.metrics)
    app.tracing = tracing
    done, cpu, ran = asyncio.Event(), 0.0, 0

    @app.task(name="mark", queue=QUEUE)
    async def mark(number: int, text: str) -> int:
        nonlocal ran, cpu
        ran += 1
        if ran == round(JOBS * WARM):
            cpu = -time.process_time()
        if ran == JOBS:
            cpu += time.process_time()
            done.set()
        return number

    async with app:
        await enqueue(app, way.flags)
        gc.collect()
        deployment = Deployment(app, [Worker], Options(queues=(QUEUE,), concurrency=100))
        running = asyncio.create_task(deployment.run())
        await done.wait()
        deployment.stop()
        await running
        if app.metrics is not None:
            counted = [point.counts for reading in app.metrics.read()[:1] for point in reading.points]  # type: ignore[union-attr]
            assert sum(map(sum, counted)) == JOBS
            began = time.process_time()
            page = exposition(app.metrics.read())
            print(f"a page of {len(page):,} bytes took {(time.process_time() - began) * 1e3:.2f} ms")
        await app.queue(QUEUE).obliterate(force=True)
        await app.connections.broker.delete(app.connections.names.job_queue(QUEUE))
    return cpu / (JOBS * (1 - WARM)) * 1e6


async def by_itself(call: Callable[[], Awaitable[object]], nothing: float = 0.0) -> float:
    """CPU us of a call, less what a call of nothing takes: the best of many short loops."""
    best = float("inf")
    for _ in range(LOOPS):
        began = time.process_time_ns()
        for _ in range(CALLS):
            await call()
        best = min(best, (time.process_time_ns() - began) / CALLS / 1000)
    return best - nothing


async def pieces() -> dict[str, float]:
    metrics = Metrics(SystemClock(), knows=lambda name: True)
    job: dict[str, Any] = {"id": "j" * 32, "queue": QUEUE, "task": "mark", "created_at": 1, "dispatch": 1}
    run = Run(queue=QUEUE, ticket=Ticket(**job), claimed=Claimed("j", Verdict.CLAIMED), boot="b", started_at=2)
    run.sent_at = 1
    run.context = object()  # type: ignore[assignment]
    outcome = Outcome(id="j", dispatch=1, owner="b", ending=Ending.COMPLETED)

    async def nothing() -> None: ...

    async def count() -> None:
        metrics.started(run)
        metrics.ended(run, outcome)

    async def name() -> None:
        RUNNING.set(None)
        RUNNING.set(None)

    plain = await by_itself(nothing)
    found = {
        "always: name the run for the log": await by_itself(name, plain),
        "metrics: count its start and its end": await by_itself(count, plain),
    }
    for way in WAYS:
        tracing = tracing_of(way)
        if tracing is not None:
            about = None if way.flags is None else f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{way.flags:02}"
            ticket = Ticket(**job, traceparent=about)
            found[way.name] = await by_itself(partial(tracing.run, ticket, QUEUE, 1, "w", nothing), plain)
    return found


async def measured(broker: str, store: str) -> dict[str, list[float]]:
    tracings = {way.name: tracing_of(way) for way in WAYS}
    costs: dict[str, list[float]] = {way.name: [] for way in WAYS}
    await cost(OFF, None, broker=broker, store=store)
    for number in range(ROUNDS):
        turn = number % len(WAYS)
        for way in (*WAYS[turn:], *WAYS[:turn]):
            costs[way.name].append(await cost(way, tracings[way.name], broker=broker, store=store))
    return costs


@pytest.mark.bench
def test_telling_costs_little(amqp_url: str, redis_url: str) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        costs = runner.run(measured(amqp_url, redis_url))
        parts = runner.run(pieces())
    least = min(costs[OFF.name])
    print(f"\n\n{JOBS:,} jobs, medians of {ROUNDS} rounds (least..most):\n")
    print("| | CPU us/job | times off | wanted |")
    print("|---|---:|---:|---|")
    for way in WAYS:
        ratios = [mine / off for mine, off in zip(costs[way.name], costs[OFF.name], strict=True)]
        wanted = f"<= {WANTED}: {'yes' if median(ratios) <= WANTED else '**no**'}" if way.wanted else ""
        print(
            f"| {way.name} | {median(costs[way.name]):.1f} ({min(costs[way.name]):.1f}..{max(costs[way.name]):.1f}) "
            f"| {median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f}) | {wanted} |"
        )
    print(f"\n| by itself | CPU us | of the least of off, {least:.1f} |\n|---|---:|---:|")
    for name, microseconds in parts.items():
        print(f"| {name} | {microseconds:.2f} | {microseconds / least:.1%} |")
