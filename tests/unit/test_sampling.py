"""What is not sampled makes no span, and is still one trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from callboard.runtime.tracing import Tracing, make_provider
from callboard.runtime.wire import Ticket

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED, UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01", f"00-{TRACE}-00f067aa0ba902b7-00"


def keeping(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def sampled_by(sampler: Sampler) -> tuple[Tracing, InMemorySpanExporter]:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    return Tracing(provider), keeping(provider)


async def run(tracing: Tracing, traceparent: str | None, work: Callable[[], Awaitable[object]] | None = None) -> object:
    async def current() -> str | None:
        return tracing.current()

    ticket = Ticket(id="j", queue="q", task="t", created_at=1, dispatch=1, traceparent=traceparent)
    return await tracing.run(ticket, "q", 1, "w", work or current)


async def test_a_run_of_a_sampled_trace_has_a_span_in_it() -> None:
    tracing, spans = sampled_by(ParentBased(ALWAYS_OFF))
    for _ in range(2):  # the second time the answer is known
        inside = await run(tracing, SAMPLED)
        assert str(inside).startswith(f"00-{TRACE}-")
        assert str(inside).endswith("-01") or str(inside).endswith("-03")
    assert [span.name for span in spans.get_finished_spans()] == ["process q", "process q"]


async def test_a_run_of_a_trace_that_is_not_sampled_has_none_and_hands_the_trace_on() -> None:
    tracing, spans = sampled_by(ParentBased(ALWAYS_ON))
    assert await run(tracing, UNSAMPLED) == UNSAMPLED
    assert await run(tracing, UNSAMPLED) == UNSAMPLED
    assert tracing.current() is None  # nothing of it is left behind
    assert spans.get_finished_spans() == ()


async def test_spans_that_a_task_makes_follow_the_decision() -> None:
    tracing, spans = sampled_by(ParentBased(ALWAYS_ON))

    async def work() -> None:
        with tracing._tracer.start_as_current_span("own"):
            pass

    await run(tracing, UNSAMPLED, work)
    assert spans.get_finished_spans() == ()
    await run(tracing, SAMPLED, work)
    assert [span.name for span in spans.get_finished_spans()] == ["own", "process q"]


async def test_a_sampler_that_takes_what_its_parent_does_not_is_obeyed() -> None:
    tracing, spans = sampled_by(ALWAYS_ON)
    await run(tracing, UNSAMPLED)
    assert len(spans.get_finished_spans()) == 1


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), TraceIdRatioBased(0.0)])
async def test_runs_that_begin_a_trace_are_dropped_as_the_sampler_says(sampler: Sampler) -> None:
    tracing, spans = sampled_by(sampler)
    await run(tracing, None)
    assert spans.get_finished_spans() == ()


async def test_of_the_traces_that_runs_begin_as_many_are_sampled_as_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    provider = make_provider("test")
    spans, tracing = keeping(provider), Tracing(provider)
    inside = [str(await run(tracing, None)) for _ in range(2_000)]
    provider.shutdown()

    sampled = {f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()}
    assert 400 < len(sampled) < 600, "0.25 of 2,000; asked twice it would be a sixteenth"
    flagged = {text[3:35] for text in inside if int(text[-2:], 16) & 1}
    assert flagged == sampled
    assert len({text[3:35] for text in inside}) == 2_000, "each has a trace of its own"


async def test_a_trace_that_a_run_begins_and_drops_is_one_trace_in_all_that_comes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracing = Tracing(make_provider("test"))

    async def work() -> list[str | None]:
        return [tracing.current(), tracing.current(), await run(tracing, tracing.current())]  # type: ignore[list-item]

    first, second, of_its_job = await run(tracing, None, work)  # type: ignore[misc]
    assert first == second == of_its_job
    assert tracing.current() is None


async def test_without_a_provider_nothing_is_made_and_nothing_fails() -> None:
    tracing = Tracing(trace.NoOpTracerProvider())
    await run(tracing, SAMPLED)
    await run(tracing, None)


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01"])
async def test_what_is_no_traceparent_begins_a_trace(traceparent: str) -> None:
    tracing, spans = sampled_by(ParentBased(ALWAYS_ON))
    await run(tracing, traceparent)
    (span,) = spans.get_finished_spans()
    assert span.parent is None


@pytest.mark.parametrize("traceparent", ["00-0-0-00", f"00-{'g' * 32}-{'0' * 16}-00", f"00-{'0' * 32}-{'0' * 16}-00"])
async def test_what_is_no_traceparent_and_looks_unsampled_hands_nothing_on(traceparent: str) -> None:
    tracing, spans = sampled_by(ParentBased(ALWAYS_ON))
    assert await run(tracing, traceparent) is None
    assert spans.get_finished_spans() == ()
