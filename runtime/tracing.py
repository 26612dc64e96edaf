"""OpenTelemetry spans, where the setting `tracing` is on: one trace from who enqueued a job to what its task enqueues.

    producer (any language)    the header `traceparent` of a submission, or the span that is current where a job is made
    the job                    carries it as its payload's `traceparent`, through delays, retries and relays
    worker                     runs it in a span "process <queue>", whose parent it is; jobs made there are its children

The vocabulary is that of OpenTelemetry's conventions for messaging. Spans go to the tracer provider of the process; the
commands `run` and `up` make one that exports by OTLP over HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME
say.
Off, nothing of OpenTelemetry is imported.

A span costs about as much as running an empty job, so a busy worker wants to sample (OTEL_TRACES_SAMPLER), and what is
not sampled has to cost next to nothing: a run whose trace is dropped makes no span, its job's traceparent is current in
its task as it is. That is decided by the provider's own sampler, once for each traceparent, and before a span is built
for a run that begins a trace.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from .telemetry_names import SCOPE, not_installed, resource

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.trace import TracerProvider

    from .wire import Ticket

T = TypeVar("T")

MOST_PARENTS = 1024  # traceparents that are remembered; the jobs of a bulk share one


def make_tracing(on: bool) -> Tracing | None:
    """ConfigurationError where it is on and OpenTelemetry is not installed."""
    return Tracing() if on else None


class Parent(Struct, frozen=True):
    """What a run's span is made in; `dropped`: its trace is not sampled, and no span is made."""

    context: Context
    dropped: bool


class Tracing:
    """`provider` None: that of the process, once it has one. ConfigurationError: OpenTelemetry is not installed."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise not_installed("tracing needs", error) from error
        self._trace = trace
        self._context = context
        self._propagator = TraceContextTextMapPropagator()
        self._provider = provider
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=provider)
        self._sampler: Any = None  # once there is a provider whose sampler may be asked ahead
        self._ids: Any = None  # the provider's, where that is ours and lets an id be chosen
        self._parents: dict[str, Parent] = {}

    def current(self) -> str | None:
        """The traceparent (W3C) of the span in which this is called, if there is one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    def ids(self) -> tuple[str, str] | None:
        """Of the current trace and span, as hexadecimal digits."""
        current = self._trace.get_current_span().get_span_context()
        return (f"{current.trace_id:032x}", f"{current.span_id:016x}") if current.is_valid else None

    async def run(self, ticket: Ticket, queue: str, attempt: int, worker: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work of one run in its span; what it raises is recorded there and raised."""
        parent = self._parent(ticket.traceparent) if ticket.traceparent else self._root()
        if parent.dropped:
            token = self._context.attach(parent.context)
            try:
                return await work()
            finally:
                self._context.detach(token)
        attributes: dict[str, Any] = {
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": queue,
            "messaging.message.id": ticket.id,
            "messaging.client.id": worker,
            "callboard.task": ticket.task,
            "callboard.attempt": attempt,
        }
        with self._tracer.start_as_current_span(
            f"process {queue}", context=parent.context, kind=self._trace.SpanKind.CONSUMER, attributes=attributes
        ):
            return await work()

    def _parent(self, traceparent: str) -> Parent:
        found = self._parents.get(traceparent)
        if found is None:
            context = self._propagator.extract({"traceparent": traceparent})
            span = self._trace.get_current_span(context).get_span_context()
            if not span.is_valid or not self._can_ask():
                return Parent(context, dropped=False)
            found = self._decided(context, span.trace_id, span.span_id)
            if len(self._parents) >= MOST_PARENTS:
                self._parents.clear()
            self._parents[traceparent] = found
        return found

    def _root(self) -> Parent:
        """Of a run that begins a trace. Asked ahead only where the provider then takes the trace's id from here: two
        questions about two ids would sample a square of what was asked for."""
        nothing = self._context.Context()
        if not self._can_ask() or self._ids is None:
            return Parent(nothing, dropped=False)
        trace_id = self._ids.generate_trace_id()
        parent = self._decided(nothing, trace_id, trace_id % 2**64 or 1)
        if not parent.dropped:
            self._ids.choose(trace_id)
        return parent

    def _decided(self, context: Context, trace_id: int, span_id: int) -> Parent:
        if self._sampler.should_sample(context, trace_id, "process").decision.is_recording():
            return Parent(context, dropped=False)
        trace = self._trace
        dropped = trace.NonRecordingSpan(trace.SpanContext(trace_id, span_id, is_remote=True))
        return Parent(trace.set_span_in_context(dropped, context), dropped=True)

    def _can_ask(self) -> bool:
        """Whether there is a provider, with one of the samplers that decide by the parent and the trace's id alone."""
        if self._sampler is None:
            tracer = self._trace.get_tracer(SCOPE, tracer_provider=self._provider)
            sampler = getattr(tracer, "sampler", None)  # none without an SDK
            if sampler is None:
                return False
            from opentelemetry.sdk.trace.sampling import ParentBased, StaticSampler, TraceIdRatioBased  # it is there

            self._sampler = sampler if isinstance(sampler, ParentBased | StaticSampler | TraceIdRatioBased) else False
            ids = getattr(tracer, "id_generator", None)
            self._ids = ids if hasattr(ids, "choose") else None
        return self._sampler is not False


def export_spans(service: str) -> Callable[[], None]:
    """Give this process a tracer provider that exports by OTLP, unless its program has made one; call what is returned
    before the process ends, so that the last spans leave. OTEL_* variables count before `service`."""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = make_provider(service)
    except ImportError as error:
        raise not_installed("tracing needs", error) from error
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return lambda: None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def make_provider(service: str) -> SdkProvider:
    """One whose traces may be given their id before they begin; it samples as OTEL_TRACES_SAMPLER says."""
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider  # the SDK only where spans are exported
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class ChosenIds(RandomIdGenerator):
        """`choose` says the id of the trace that this thread begins next."""

        def __init__(self) -> None:
            self._next = threading.local()

        def choose(self, trace_id: int) -> None:
            self._next.id = trace_id

        def generate_trace_id(self) -> int:
            chosen: int | None = self._next.__dict__.pop("id", None)
            return chosen or super().generate_trace_id()

    return SdkProvider(resource=resource(service), id_generator=ChosenIds())
