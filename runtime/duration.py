"""Durations as users give them, in seconds, turned into whole milliseconds."""

from __future__ import annotations

from datetime import timedelta

from .errors import InvalidJob
from .json_value import shown

Duration = int | float | timedelta

MAX_SECONDS = 10 * 366 * 86_400  # ten years: what is longer is a mistake of units, and would overflow what stores index


class DurationInvalid(InvalidJob):
    """A duration that is not a number of seconds from 0 to ten years. Names the parameter and holds the value."""

    def __init__(self, *, name: str, value: object, reason: str) -> None:
        super().__init__(f"{name}={shown(value)}: {reason}")
        self.name = name
        self.value = value
        self.reason = reason


def seconds_to_ms(value: object, name: str) -> int:
    """Whole milliseconds, rounded to the nearest; what is above zero never becomes zero.

    Raises DurationInvalid for anything but an int, float or timedelta from 0 s to ten years: a bool or a string is
    refused, not converted.
    """
    match value:
        case bool():
            raise DurationInvalid(name=name, value=value, reason="wants seconds (int, float or timedelta), not a bool")
        case timedelta():
            seconds: float = value.total_seconds()
        case int() | float():
            seconds = value
        case _:
            reason = f"wants seconds (int, float or timedelta), not {type(value).__name__}"
            raise DurationInvalid(name=name, value=value, reason=reason)
    if seconds != seconds:  # NaN; math.isnan fails on an int too large for a float
        raise DurationInvalid(name=name, value=value, reason="is not a number of seconds")
    if seconds < 0:
        raise DurationInvalid(name=name, value=value, reason="must not be negative")
    if seconds > MAX_SECONDS:
        raise DurationInvalid(name=name, value=value, reason=f"is longer than ten years ({MAX_SECONDS} s)")
    milliseconds = round(seconds * 1000)
    return max(milliseconds, 1) if seconds > 0 else 0
