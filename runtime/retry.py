"""What becomes of a job whose run ended in an error: again after a while, or failed for good.

RetryInvalid     a backoff or a policy that makes no sense: names the path and holds the value
Retry            raised by a task: run me again, after so many seconds
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from random import Random
from typing import Any, Literal

from msgspec import Struct

from .duration import MAX_SECONDS, Duration, DurationInvalid, seconds_to_ms
from .errors import InvalidJob
from .json_value import shown
from .results import RemoteFailure

MAX_RETRIES = 1_000_000
MAX_FACTOR = 1000.0
DEFAULT_CAP_MS = 600_000
MAX_MS = MAX_SECONDS * 1000


class RetryInvalid(InvalidJob):
    def __init__(self, *, path: str, value: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.value = value
        self.reason = reason


class Retry(Exception):
    """Raised by a task to be run again; it uses up a retry like any other error.

    `after` (seconds or timedelta) takes the place of the backoff for this once; None leaves it to the backoff.
    Once no retry is left the job fails with this error, so `reason` should say why.
    """

    def __init__(self, after: Duration | None = None, reason: str | None = None) -> None:
        super().__init__(reason if reason is not None else "the task asked to be run again")
        self.after = after
        self.after_ms = None if after is None else seconds_to_ms(after, "after")
        self.reason = reason


class BackoffKind(StrEnum):
    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Backoff(Struct, frozen=True, kw_only=True):
    """How long to wait after the n-th failure: `delay_ms`, n times that, or times `factor` for each failure after the
    first; never above `cap_ms`.

    `jitter` takes a random share away, so that jobs which failed together do not come back together: 0 none, 0.5 down
    to half, 1 ("full") down to nothing. Use `fixed`, `linear`, `exponential` or `parse`, which check their values.
    """

    kind: BackoffKind = BackoffKind.EXPONENTIAL
    base_ms: int = 1000
    factor: float = 2.0
    cap_ms: int = DEFAULT_CAP_MS
    jitter: float = 0.5

    @classmethod
    def fixed(cls, delay: Duration, *, jitter: float | Literal["full"] = 0.0) -> Backoff:
        return cls.parse({"type": "fixed", "delay": delay, "jitter": jitter})

    @classmethod
    def linear(
        cls, delay: Duration = 1, *, cap: Duration | None = None, jitter: float | Literal["full"] = 0.5
    ) -> Backoff:
        """`cap` None: ten minutes, or `delay` if that is longer."""
        return cls.parse({"type": "linear", "delay": delay, "jitter": jitter} | ({} if cap is None else {"cap": cap}))

    @classmethod
    def exponential(
        cls,
        delay: Duration = 1,
        *,
        factor: float = 2.0,
        cap: Duration | None = None,
        jitter: float | Literal["full"] = 0.5,
    ) -> Backoff:
        """`cap` None: ten minutes, or `delay` if that is longer."""
        given = {"type": "exponential", "delay": delay, "factor": factor, "jitter": jitter}
        return cls.parse(given | ({} if cap is None else {"cap": cap}))

    @classmethod
    def parse(cls, value: object, path: str = "backoff") -> Backoff:
        """From the wire's form, a number of seconds (fixed) or an object with `type` and, where they apply, `delay`,
        `factor`, `cap`, `jitter`; or from a timedelta (fixed) or a Backoff. RetryInvalid names the member."""
        if isinstance(value, Backoff):
            return value
        if not isinstance(value, Mapping):
            delay_ms = _duration(value, path)
            return cls(kind=BackoffKind.FIXED, base_ms=delay_ms, factor=1.0, cap_ms=MAX_MS, jitter=0.0)
        return _parse_object(value, path)

    def to_json(self) -> float | dict[str, Any]:
        """The wire's form; `parse` of it is equal to this."""
        if self == Backoff.parse(self.base_ms / 1000):
            return self.base_ms / 1000
        form: dict[str, Any] = {"type": self.kind.value, "delay": self.base_ms / 1000, "jitter": self.jitter}
        if self.kind is not BackoffKind.FIXED:
            form["cap"] = self.cap_ms / 1000
        if self.kind is BackoffKind.EXPONENTIAL:
            form["factor"] = self.factor
        return form

    def delay_ms(self, failures: int, random: Random) -> int:
        """Milliseconds to wait after the `failures`-th failure (the first is 1): 0 to ten years."""
        steps = max(failures, 1)
        match self.kind:
            case BackoffKind.FIXED:
                delay: float = self.base_ms
            case BackoffKind.LINEAR:
                delay = self.base_ms * steps
            case BackoffKind.EXPONENTIAL:
                delay = self._grown(steps - 1)
        delay = min(delay, self.cap_ms, MAX_MS)
        return max(0, round(delay * (1 - self.jitter * random.random())))

    def _grown(self, exponent: int) -> float:
        if self.base_ms == 0:
            return 0.0
        try:
            return self.base_ms * self.factor**exponent
        except OverflowError:
            return float(self.cap_ms)


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How often a job's failed runs are repeated, when, and for which errors.

    `retries`: runs after the first, 0 to a million. `retry_on` None: every error; else only these. `give_up_on`: never
    these, whatever `retry_on` says. Classes are matched with their subclasses; an error that comes from another
    process is matched by the names of its classes. Use `create`, which checks the values.
    """

    retries: int = 0
    backoff: Backoff = Backoff()
    retry_on: tuple[type[BaseException], ...] | None = None
    give_up_on: tuple[type[BaseException], ...] = ()

    @classmethod
    def create(
        cls,
        *,
        retries: object = 0,
        backoff: object = None,
        retry_on: object = None,
        give_up_on: object = (),
    ) -> RetryPolicy:
        """Raises RetryInvalid, naming the parameter, for a value that makes no sense. `backoff` None: the default."""
        return cls(
            retries=parse_retries(retries),
            backoff=Backoff() if backoff is None else Backoff.parse(backoff),
            retry_on=None if retry_on is None else _classes(retry_on, "retry_on"),
            give_up_on=_classes(give_up_on, "give_up_on"),
        )

    def decide(self, error: BaseException, failures: int, random: Random) -> int | None:
        """Milliseconds until the next run, or None: the job has failed for good.

        `failures` counts the failed runs of this job, this one included. A `Retry` is not subject to `retry_on` and
        `give_up_on`, but to `retries`.
        """
        if failures > self.retries:
            return None
        if isinstance(error, Retry):
            return self.backoff.delay_ms(failures, random) if error.after_ms is None else error.after_ms
        if matches(error, self.give_up_on):
            return None
        if self.retry_on is not None and not matches(error, self.retry_on):
            return None
        return self.backoff.delay_ms(failures, random)


def matches(error: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    """Whether the error is of one of the classes; a RemoteFailure by its names alone."""
    if isinstance(error, RemoteFailure):
        names = set(error.class_names)
        if any(f"{one.__module__}.{one.__qualname__}" in names for one in classes):
            return True
    return isinstance(error, classes)


def parse_retries(value: object, path: str = "retries") -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RetryInvalid(path=path, value=value, reason=f"wants a whole number, not {type(value).__name__}")
    if not 0 <= value <= MAX_RETRIES:
        raise RetryInvalid(path=path, value=value, reason=f"must be from 0 to {MAX_RETRIES}")
    return value


_MEMBERS = {
    BackoffKind.FIXED: {"type", "delay", "jitter"},
    BackoffKind.LINEAR: {"type", "delay", "cap", "jitter"},
    BackoffKind.EXPONENTIAL: {"type", "delay", "cap", "jitter", "factor"},
}


def _parse_object(value: Mapping[Any, Any], path: str) -> Backoff:
    kinds = ", ".join(BackoffKind)
    given = value.get("type")
    if not isinstance(given, str) or given not in set(BackoffKind):
        raise RetryInvalid(path=f"{path}.type", value=given, reason=f"{shown(given)} is not one of {kinds}")
    kind = BackoffKind(given)
    for member in value:
        if member not in _MEMBERS[kind]:
            allowed = ", ".join(sorted(_MEMBERS[kind]))
            reason = f"is not a member of a {kind} backoff, which has {allowed}"
            raise RetryInvalid(path=f"{path}.{str(member)[:80]}", value=value[member], reason=reason)
    if kind is BackoffKind.FIXED and "delay" not in value:
        raise RetryInvalid(path=f"{path}.delay", value=None, reason="is needed for a fixed backoff")
    base_ms = _duration(value.get("delay", 1), f"{path}.delay")
    fixed = kind is BackoffKind.FIXED
    cap_ms = MAX_MS if fixed else max(base_ms, DEFAULT_CAP_MS)
    if "cap" in value:
        cap_ms = _duration(value["cap"], f"{path}.cap")
    if cap_ms < base_ms:
        reason = f"{cap_ms / 1000} s is less than the delay, {base_ms / 1000} s"
        raise RetryInvalid(path=f"{path}.cap", value=value["cap"], reason=reason)
    factor = 2.0 if kind is BackoffKind.EXPONENTIAL else 1.0
    if "factor" in value:
        factor = _number(value["factor"], f"{path}.factor", low=1.0, high=MAX_FACTOR)
    jitter = value.get("jitter", 0.0 if fixed else 0.5)
    jitter = 1.0 if jitter == "full" else _number(jitter, f"{path}.jitter", low=0.0, high=1.0)
    return Backoff(kind=kind, base_ms=base_ms, factor=factor, cap_ms=cap_ms, jitter=jitter)


def _duration(value: object, path: str) -> int:
    try:
        return seconds_to_ms(value, path)
    except DurationInvalid as error:
        reason = str(error).removeprefix(path)
        raise RetryInvalid(path=path, value=value, reason=reason.lstrip("=")) from None


def _number(value: object, path: str, *, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RetryInvalid(path=path, value=value, reason=f"{shown(value)} is not a number")
    if not low <= value <= high:  # also refuses NaN
        raise RetryInvalid(path=path, value=value, reason=f"{shown(value)} is not from {low:g} to {high:g}")
    return float(value)


def _classes(value: object, path: str) -> tuple[type[BaseException], ...]:
    classes = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise RetryInvalid(path=path, value=one, reason=f"{shown(one)} is not an exception class")
    return classes
