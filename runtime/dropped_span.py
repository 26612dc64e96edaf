"""The current span of a run whose trace is not sampled. It only hands its trace on, and is not even read until somebody
asks: most tasks neither enqueue a job nor make a span.

Imported where tracing is on: it needs OpenTelemetry.
"""

from __future__ import annotations

import re

from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, TraceFlags

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class DroppedSpan(NonRecordingSpan):
    """`trace`: the traceparent of its parent, or the id of a trace that begins with it."""

    def __init__(self, trace: str | int) -> None:
        self._trace = trace

    def get_span_context(self) -> SpanContext:
        if isinstance(self._trace, int):
            return SpanContext(self._trace, self._trace % 2**64 or 1, is_remote=True)
        found = _TRACEPARENT.fullmatch(self._trace)
        if found is None:
            return INVALID_SPAN_CONTEXT
        flags = TraceFlags(int(found[3], 16) & ~TraceFlags.SAMPLED)
        read = SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
        return read if read.is_valid else INVALID_SPAN_CONTEXT

    def __repr__(self) -> str:
        return f"DroppedSpan({self._trace!r})"
