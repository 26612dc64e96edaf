"""One trace from the span in which a job is made to the runs of what its task enqueues."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callboard import Context
from callboard.runtime.testing import running
from path.place import Place


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """OpenTelemetry takes one for a process, and keeps it."""
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def spans(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


async def test_what_a_task_enqueues_belongs_to_the_trace_of_its_maker(
    place: Place, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with place.open(tracing=True) as app:

        @app.task(name="second", queue="seconds")
        def second(name: str, ctx: Context) -> str:  # in a thread
            ctx.logger.info("greeting %s", name)
            return f"hello {name}"

        @app.task(name="first", queue="firsts")
        async def first(name: str) -> str:
            return await (await second.options(delay=0.05).enqueue(name)).result(30)

        async with running(app):
            with trace.get_tracer("test").start_as_current_span("request"):
                assert await (await first.enqueue("trace")).result(30) == "hello trace"
            async with asyncio.timeout(30):
                while not named(spans, "process firsts"):
                    await asyncio.sleep(0.01)

    (request,), (outer,), (inner,) = (named(spans, name) for name in ("request", "process firsts", "process seconds"))
    assert outer.parent is not None
    assert inner.parent is not None
    assert request.context.trace_id == outer.context.trace_id == inner.context.trace_id
    assert outer.parent.span_id == request.context.span_id
    assert inner.parent.span_id == outer.context.span_id
    assert inner.kind is trace.SpanKind.CONSUMER
    assert inner.attributes is not None
    assert inner.attributes["messaging.destination.name"] == "seconds"
    assert inner.attributes["callboard.attempt"] == 1
    (record,) = [one for one in caplog.records if one.name == "callboard.task.second"]
    assert getattr(record, "trace", "") == f"{request.context.trace_id:032x}"


async def test_a_failed_run_is_an_error_in_its_span_and_its_repeat_a_span_of_the_same_trace(
    place: Place, spans: InMemorySpanExporter
) -> None:
    async with place.open(tracing=True) as app:

        @app.task(name="odd", retries=1, backoff=0)
        async def odd(ctx: Context) -> int:
            if ctx.attempt == 1:
                raise LookupError("not yet")
            return ctx.attempt

        async with running(app):
            assert await (await odd.enqueue()).result(30) == 2
            async with asyncio.timeout(30):
                while len(named(spans, "process default")) < 2:
                    await asyncio.sleep(0.01)

    failed, repeated = named(spans, "process default")
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert "not yet" in str(failed.status.description)
    assert repeated.status.status_code is not trace.StatusCode.ERROR


async def test_without_the_setting_there_is_no_span(place: Place, spans: InMemorySpanExporter) -> None:
    async with place.open() as app:

        @app.task(name="quiet")
        async def quiet(ctx: Context) -> str | None:
            return ctx.traceparent

        async with running(app):
            with trace.get_tracer("test").start_as_current_span("request"):
                assert await (await quiet.enqueue()).result(30) is None

    assert [span.name for span in spans.get_finished_spans()] == ["request"]
