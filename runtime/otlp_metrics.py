"""Readings by OTLP over HTTP, from a thread of its own, every OTEL_METRIC_EXPORT_INTERVAL milliseconds (60,000).

Where to, with which headers and how long to try is said by OpenTelemetry's own OTEL_EXPORTER_OTLP_* variables, the
resource by OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES. Sums are cumulative. The readings are handed to
OpenTelemetry's exporter as they are: its SDK would count everything a second time, and has no histograms that are read.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .errors import ConfigurationError
from .metrics import Distribution, Instrument, Kind, Reading, Value
from .telemetry_names import ATTRIBUTES, SCOPE, not_installed, resource

log = logging.getLogger("callboard.metrics")

INTERVAL_MS = 60_000
INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
END_SECONDS = 5.0  # for the last export, at the end of the process


class OtlpMetrics:
    """`read` is called in the exporter's thread. `service`: its name, where OTEL_SERVICE_NAME does not say."""

    def __init__(self, read: Callable[[], Sequence[Reading]], *, service: str, exporter: Any = None) -> None:
        """`exporter` None: OpenTelemetry's. ConfigurationError where OpenTelemetry is not installed, or the interval is
        no number."""
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.sdk.metrics import export
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as error:
            raise not_installed("metrics by OTLP need", error) from error
        self._sdk = export
        self._scope = InstrumentationScope(SCOPE)
        self._resource = resource(service)
        self._read = read
        self._seconds = _interval_seconds()
        self._exporter = OTLPMetricExporter() if exporter is None else exporter
        self._began = time.time_ns()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._export_now_and_then, name="callboard-otlp", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Export once more, and end: within END_SECONDS, whatever the collector does. Must not be called in the loop
        that `read` asks."""
        self._over.set()
        self._thread.join(END_SECONDS)
        self._exporter.shutdown()

    def _export_now_and_then(self) -> None:
        over = False
        while not over:
            over = self._over.wait(self._seconds)
            data = self.data(time.time_ns())
            try:
                self._exporter.export(data)  # it says itself what it could not send
            except OSError as error:  # but the older ones raise what their connection raises
                log.warning("metrics could not be sent: %s; the next ones are sent in %g s", error, self._seconds)

    def data(self, now: int) -> Any:
        """What is exported at that moment (ns), as OpenTelemetry's MetricsData."""
        sdk = self._sdk
        metrics = [
            sdk.Metric(reading.instrument.semantic, reading.instrument.help, reading.instrument.unit, data)
            for reading in self._read()
            if (data := self._points(reading, now)) is not None
        ]
        scope = sdk.ScopeMetrics(self._scope, metrics, "")
        return sdk.MetricsData([sdk.ResourceMetrics(self._resource, [scope], "")])

    def _points(self, reading: Reading, now: int) -> Any:
        sdk, instrument = self._sdk, reading.instrument
        if not reading.points:
            return None
        points = [
            self._distribution(instrument, point, now)
            if isinstance(point, Distribution)
            else sdk.NumberDataPoint(_attributes(instrument, point), self._began, now, point.value)
            for point in reading.points
        ]
        cumulative = sdk.AggregationTemporality.CUMULATIVE
        if instrument.kind is Kind.HISTOGRAM:
            return sdk.Histogram(points, cumulative)
        if instrument.kind is Kind.COUNTER:
            return sdk.Sum(points, cumulative, is_monotonic=True)
        return sdk.Gauge(points)

    def _distribution(self, instrument: Instrument, point: Distribution, now: int) -> Any:
        not_kept: Any = None
        return self._sdk.HistogramDataPoint(
            attributes=_attributes(instrument, point),
            start_time_unix_nano=self._began,
            time_unix_nano=now,
            count=sum(point.counts),
            sum=point.sum,
            bucket_counts=point.counts,
            explicit_bounds=instrument.bounds,
            min=not_kept,
            max=not_kept,
        )


def _attributes(instrument: Instrument, point: Value | Distribution) -> dict[str, str]:
    constant = {"messaging.system": "rabbitmq", "messaging.operation.name": "process"}
    named = {ATTRIBUTES[label]: value for label, value in zip(instrument.labels, point.labels, strict=True)}
    return {**constant, **named} if instrument.semantic.startswith("messaging.") else named


def _interval_seconds() -> float:
    given = os.environ.get(INTERVAL) or str(INTERVAL_MS)
    if not given.isdecimal() or not 1 <= int(given) <= 24 * 3600 * 1000:
        raise ConfigurationError(f"{INTERVAL}={given!r:.100} must be a whole number of milliseconds, up to a day")
    return int(given) / 1000
