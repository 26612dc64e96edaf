"""OpenTelemetry spans, where the setting `tracing` is on: one trace from who enqueued a job to what its task enqueues.

    producer (any language)    the header `traceparent` of a submission, or the span that is current where a job is made
    the job                    carries it as its payload's `traceparent`, through delays, retries and relays
    worker                     runs it in a span "process <queue>", whose parent it is; jobs made there are its children

The vocabulary is that of OpenTelemetry's conventions for messaging. Spans go to the tracer provider of the process; the
commands `run` and `up` make one that exports by OTLP over HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME
say.
Off, nothing of OpenTelemetry is imported.

A span costs about as much as running an empty job, so a busy worker wants to sample (OTEL_TRACES_SAMPLER), and what is
not sampled has to cost next to nothing: such a run makes no span, and hands its trace on as it is. Whether it is
sampled is found in what the provider's sampler says of itself, where that goes by the parent; any other sampler is
asked by OpenTelemetry, at its price.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from .telemetry_names import SCOPE, not_installed, resource

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import TracerProvider

    from .dropped_span import DroppedSpan
    from .wire import Ticket

T = TypeVar("T")

_UNSAMPLED = frozenset("02468ace")  # last digit of a traceparent whose maker does not sample it
_DROPS_UNSAMPLED = "remoteParentNotSampled:AlwaysOffSampler"
_ROOT = re.compile(r"ParentBased\{root:(AlwaysOffSampler|AlwaysOnSampler|TraceIdRatioBased\{([0-9.e+-]+)\}),")


def make_tracing(on: bool) -> Tracing | None:
    """ConfigurationError where it is on and OpenTelemetry is not installed."""
    return Tracing() if on else None


class Rule(Struct, frozen=True):
    """What is dropped without asking the sampler. `drops_unsampled`: runs whose parent is not sampled. `bound`: runs
    that begin a trace, if the lower half of its id is not less; None: those are left to the sampler."""

    drops_unsampled: bool = False
    bound: int | None = None


class Tracing:
    """`provider` None: that of the process, once it has one. ConfigurationError: OpenTelemetry is not installed."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            from .dropped_span import DroppedSpan
        except ImportError as error:
            raise not_installed("tracing needs", error) from error
        self._trace = trace
        self._context = context
        self._nothing = context.Context()
        self._dropped = DroppedSpan
        self._propagator = TraceContextTextMapPropagator()
        self._provider = provider
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=provider)
        self._rule: Rule | None = None  # once there is a provider that has a sampler
        self._ids: Any = None  # the provider's, where that is ours and lets an id be chosen

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
        traceparent = ticket.traceparent
        dropped = self._dropped_root() if traceparent is None else self._dropped_parent(traceparent)
        if dropped is not None:
            token = self._context.attach(self._trace.set_span_in_context(dropped, self._nothing))
            try:
                return await work()
            finally:
                self._context.detach(token)
        parent = self._propagator.extract({} if traceparent is None else {"traceparent": traceparent})
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
            f"process {queue}", context=parent, kind=self._trace.SpanKind.CONSUMER, attributes=attributes
        ):
            return await work()

    def _dropped_parent(self, traceparent: str) -> DroppedSpan | None:
        rule = self._rule or self._find_rule()
        if rule.drops_unsampled and traceparent[-1:] in _UNSAMPLED and traceparent.startswith("00-"):
            return self._dropped(traceparent)
        return None

    def _dropped_root(self) -> DroppedSpan | None:
        """Of a run that begins a trace. Decided here only where the provider then takes the trace's id from here: two
        decisions about two ids would sample a square of what was asked for."""
        rule = self._rule or self._find_rule()
        if rule.bound is None or self._ids is None:
            return None
        trace_id: int = self._ids.generate_trace_id()
        if trace_id % 2**64 >= rule.bound:
            return self._dropped(trace_id)
        self._ids.choose(trace_id)
        return None

    def _find_rule(self) -> Rule:
        tracer = self._trace.get_tracer(SCOPE, tracer_provider=self._provider)
        sampler = getattr(tracer, "sampler", None)
        if sampler is None:  # there is no provider yet, or it has no SDK
            return Rule()
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased  # it is there

        ids = getattr(tracer, "id_generator", None)
        self._ids = ids if hasattr(ids, "choose") else None
        said = sampler.get_description()
        root = _ROOT.match(said)
        bound = None
        if root is not None and root[1] != "AlwaysOnSampler":
            bound = TraceIdRatioBased.get_bound_for_rate(float(root[2] or 0))
        self._rule = Rule(drops_unsampled=root is not None and _DROPS_UNSAMPLED in said, bound=bound)
        return self._rule


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


def make_provider(service: str, *, sampler: Sampler | None = None) -> SdkProvider:
    """One whose traces may be given their id before they begin. `sampler` None: as OTEL_TRACES_SAMPLER says."""
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

    return SdkProvider(sampler=sampler, resource=resource(service), id_generator=ChosenIds())
