"""OpenTelemetry spans, where the setting `tracing` is on: one trace from who enqueued a job to what its task enqueues.

    producer (any language)    the header `traceparent` of a submission, or the span that is current where a job is made
    the job                    carries it as its payload's `traceparent`, through delays, retries and relays
    worker                     runs it in a span "process <queue>", whose parent it is; jobs made there are its children

The vocabulary is that of OpenTelemetry's conventions for messaging. Spans go to the tracer provider of the process; the
commands `run` and `up` make one that exports by OTLP over HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME
say.
Off, nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .wire import Ticket

T = TypeVar("T")


def make_tracing(on: bool) -> Tracing | None:
    """ConfigurationError where it is on and OpenTelemetry is not installed."""
    return Tracing() if on else None


class Tracing:
    def __init__(self) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise _not_installed(error) from error
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = trace.get_tracer("callboard")

    def current(self) -> str | None:
        """The traceparent (W3C) of the span in which this is called, if there is one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    async def run(self, ticket: Ticket, queue: str, attempt: int, worker: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work of one run in its span; what it raises is recorded there and raised."""
        parent = self._propagator.extract({"traceparent": ticket.traceparent} if ticket.traceparent else {})
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


def export_spans(service: str) -> Callable[[], None]:
    """Give this process a tracer provider that exports by OTLP, unless its program has made one; call what is returned
    before the process ends, so that the last spans leave. OTEL_* variables count before `service`."""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise _not_installed(error) from error
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return lambda: None
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _not_installed(error: ImportError) -> ConfigurationError:
    return ConfigurationError(f"tracing needs OpenTelemetry: pip install 'callboard[otel]' ({error})")
