"""How a job is to be run: what the task declares, and what one call of it overrides.

TaskOptions    the decorator's, once per task; retention and error classes live here, since they never travel
CallOptions    one call's; what is left None comes from the task, else from the default
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from ..metadata.job import Deduplication
from .duration import MAX_SECONDS, Duration, seconds_to_ms
from .errors import InvalidJob
from .job_id import check_id
from .json_value import shown
from .retry import Backoff, RetryPolicy, parse_retries
from .settings import Retain

HIGHEST_PRIORITY, DEFAULT_PRIORITY, LOWEST_PRIORITY = 1, 5, 10

_IN_UTC = range(-62_135_596_800_000, 253_402_300_800_000)  # ms: the years 1 to 9999

ExecutorName = Literal["auto", "process"]


class TaskOptions(Struct, frozen=True, kw_only=True):
    queue: str = "default"
    retry: RetryPolicy = RetryPolicy()
    timeout_ms: int | None = None
    ttl_ms: int | None = None
    priority: int = DEFAULT_PRIORITY
    executor: ExecutorName = "auto"
    keep_completed: Retain | None = None
    keep_failed: Retain | None = None
    result_limit: int | None = None


class CallOptions(Struct, frozen=True, kw_only=True):
    """Checked by `parse`; durations in ms, moments in ms since the epoch."""

    queue: str | None = None
    job_id: str | None = None
    delay_ms: int | None = None
    run_at: int | None = None
    priority: int | None = None
    retries: int | None = None
    backoff: Backoff | None = None
    timeout_ms: int | None = None
    ttl_ms: int | None = None
    deduplication: Deduplication | None = None
    meta: Mapping[str, Any] | None = None
    confirm: bool = False

    @classmethod
    def parse(
        cls,
        *,
        queue: str | None = None,
        job_id: str | None = None,
        delay: Duration | None = None,
        run_at: datetime | float | None = None,
        priority: int | None = None,
        retries: int | None = None,
        backoff: object = None,
        timeout: Duration | None = None,
        ttl: Duration | None = None,
        deduplication: Mapping[str, Any] | None = None,
        depends_on: object = None,
        meta: Mapping[str, Any] | None = None,
        confirm: bool = False,
    ) -> CallOptions:
        """Raises InvalidJob (a ValueError) or TypeError, naming the option and its value."""
        if depends_on is not None:
            raise InvalidJob(
                f"depends_on is not supported yet (given: {shown(depends_on)}); enqueue the dependent job from the "
                "task that it waits for"
            )
        if delay is not None and run_at is not None:
            raise InvalidJob(f"give delay ({shown(delay)}) or run_at ({shown(run_at)}), not both")
        if meta is not None and not isinstance(meta, Mapping):
            raise TypeError(f"meta must be a mapping, not {shown(meta)}")
        return cls(
            queue=queue,
            job_id=None if job_id is None else check_id(job_id),
            delay_ms=_duration(delay, "delay"),
            run_at=None if run_at is None else moment_to_ms(run_at, "run_at"),
            priority=None if priority is None else parse_priority(priority),
            retries=None if retries is None else _checked(parse_retries, retries),
            backoff=None if backoff is None else _checked(Backoff.parse, backoff),
            timeout_ms=_positive(timeout, "timeout"),
            ttl_ms=_positive(ttl, "ttl"),
            deduplication=None if deduplication is None else parse_deduplication(deduplication),
            meta=meta,
            confirm=confirm,
        )


def parse_priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not HIGHEST_PRIORITY <= value <= LOWEST_PRIORITY:
        raise InvalidJob(f"priority must be a whole number from 1 (first) to 10 (last), not {shown(value)}")
    return value


def parse_deduplication(value: Mapping[str, Any]) -> Deduplication:
    """{"id": ..., "ttl": seconds, "extend": bool, "replace": bool}; only `id` is needed."""
    if not isinstance(value, Mapping):
        raise TypeError(f"deduplication must be a mapping such as {{'id': 'customer-7'}}, not {shown(value)}")
    unknown = set(value) - {"id", "ttl", "extend", "replace"}
    if unknown:
        first = sorted(map(str, unknown))[0]
        raise InvalidJob(f"deduplication has no member {shown(first)}; known are id, ttl, extend, replace")
    name = value.get("id")
    if not isinstance(name, str) or not name or len(name.encode(errors="replace")) > 256 or not name.isprintable():
        raise InvalidJob(f"deduplication.id must be 1 to 256 bytes of printable text, not {shown(name)}")
    for flag in ("extend", "replace"):
        if not isinstance(value.get(flag, False), bool):
            raise InvalidJob(f"deduplication.{flag} must be true or false, not {shown(value[flag])}")
    ttl = value.get("ttl")
    if value.get("extend") and ttl is None:
        raise InvalidJob("deduplication.extend needs a ttl: without one there is no window to extend")
    return Deduplication(
        id=name,
        ttl=_positive(ttl, "deduplication.ttl"),
        extend=value.get("extend", False),
        replace=value.get("replace", False),
    )


def moment_to_ms(value: datetime | float, name: str) -> int:
    """An aware datetime, or Unix seconds, to ms since the epoch. Naive datetimes are refused, and those that are no
    datetime in UTC: no list could show the job."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidJob(
                f"{name}={value.isoformat()} has no time zone; use datetime(..., tzinfo=UTC) or .astimezone()"
            )
        milliseconds = round((value - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
        if milliseconds not in _IN_UTC:
            raise InvalidJob(f"{name}={value.isoformat()} is, in UTC, not within the years 1 to 9999")
        return milliseconds
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS * 10:
        raise InvalidJob(f"{name} must be an aware datetime or Unix seconds, not {shown(value)}")
    return round(value * 1000)


def _checked(parse: Any, value: object) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise InvalidJob(str(error)) from None


def _duration(value: Duration | None, name: str) -> int | None:
    if value is None:
        return None
    try:
        return seconds_to_ms(value, name)
    except ValueError as error:
        raise InvalidJob(str(error)) from None


def _positive(value: Duration | None, name: str) -> int | None:
    milliseconds = _duration(value, name)
    if milliseconds == 0:
        raise InvalidJob(f"{name} must be more than 0 seconds, not {shown(value)}")
    return milliseconds
