"""Readings in Prometheus's text format, version 0.0.4, for `GET /metrics`.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .metrics import Distribution, Reading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(readings: Iterable[Reading]) -> bytes:
    return "".join(line for reading in readings for line in _lines(reading)).encode("utf-8", "backslashreplace")


def _lines(reading: Reading) -> Iterator[str]:
    instrument = reading.instrument
    name = instrument.name
    yield f"# HELP {name} {_escaped(instrument.help)}\n# TYPE {name} {instrument.kind}\n"
    for point in reading.points:
        labels = [f'{label}="{_escaped(value)}"' for label, value in zip(instrument.labels, point.labels, strict=True)]
        if isinstance(point, Distribution):
            below = 0
            for bound, count in zip((*instrument.bounds, "+Inf"), point.counts, strict=True):
                below += count
                yield _sample(f"{name}_bucket", [*labels, f'le="{bound}"'], below)
            yield _sample(f"{name}_sum", labels, point.sum)
            yield _sample(f"{name}_count", labels, below)
        else:
            yield _sample(name, labels, point.value)


def _sample(name: str, labels: Sequence[str], value: float) -> str:
    return f"{name}{{{','.join(labels)}}} {value!r}\n" if labels else f"{name} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
