"""What a scheduler is told: objects, aliases, or a flat dictionary with the keys of Asyncz.

    {"asyncz.stores.default": {"type": "redis", "database": "0"},
     "asyncz.executors.pool": {"class": "asyncz.executors.pool:ThreadPoolExecutor", "max_workers": "20"},
     "asyncz.task_defaults.coalesce": "false",
     "asyncz.timezone": "Europe/Berlin"}

The prefix may be `callboard.` too. Values may be texts, as they come from files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, field

from ..errors import ConfigurationError
from ..triggers import Policy, TriggerInvalid
from ..triggers.aliases import Zone, zone_name
from .choices import BUILT_IN, ExecutorChoice, StoreChoice, executor_choice, store_choice

PREFIXES = ("asyncz.", "callboard.")
DEFAULT_ALIAS = "default"
MAX_DELAY_SECONDS = 3600.0

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class TaskDefaults(Struct, frozen=True, kw_only=True):
    """What tasks have that say nothing: as in Asyncz, but that a late run is not dropped after a second."""

    mistrigger_grace_time: float | None = None
    coalesce: bool = True
    max_instances: int | None = 1

    def policy(self, given: Mapping[str, Any]) -> Policy:
        """With members of a task over it. Raises TriggerInvalid."""
        members = {
            "misfire_grace": self.mistrigger_grace_time,
            "coalesce": self.coalesce,
            "max_instances": self.max_instances,
        }
        return Policy.create(**{**members, **given})


class Configuration(Struct, frozen=True, kw_only=True):
    """`stores`: those that were named; without any the app's own is `default`. `zone`: of triggers that name none, and
    of times that are shown."""

    stores: Mapping[str, StoreChoice] = {}
    executors: Mapping[str, ExecutorChoice] = field(default_factory=lambda: BUILT_IN)
    defaults: TaskDefaults = TaskDefaults()
    zone: str = "UTC"
    startup_delay: float = 0.0
    lock_path: str | None = None

    def executor(self, alias: str) -> ExecutorChoice:
        choice = self.executors.get(alias)
        if choice is None:
            raise ConfigurationError(f"there is no executor {alias!r:.100}; known are {', '.join(self.executors)}")
        return choice


def configure(
    *,
    global_config: Mapping[str, Any] | None = None,
    stores: Mapping[str, Any] | None = None,
    executors: Mapping[str, Any] | None = None,
    task_defaults: Mapping[str, Any] | None = None,
    timezone: Zone | None = None,
    startup_delay: object = None,
    lock_path: str | None = None,
) -> Configuration:
    """What is given by name goes before what `global_config` has. Raises ConfigurationError with the key."""
    plain = _nested(global_config or {})
    wanted_stores = {**plain.pop("stores", {}), **(stores or {})}
    wanted_executors = {**plain.pop("executors", {}), **(executors or {})}
    wanted_defaults = {**plain.pop("task_defaults", {}), **(task_defaults or {})}
    # Asyncz's own documents put the zone among the task's defaults.
    zone = timezone or plain.pop("timezone", None) or wanted_defaults.pop("timezone", None) or "UTC"
    delay = plain.pop("startup_delay", 0) if startup_delay is None else startup_delay
    path = plain.pop("lock_path", None) if lock_path is None else lock_path
    for ours in ("startup_delay", "lock_path", "timezone", "store_retry_interval"):
        plain.pop(ours, None)
    if plain:
        known = "stores, executors, task_defaults, timezone, startup_delay, lock_path"
        raise ConfigurationError(f"unknown key {sorted(plain)[0]!r:.100}; known are {known}")
    try:
        name = zone_name(zone)
    except TriggerInvalid as error:
        raise ConfigurationError(str(error)) from None
    return Configuration(
        stores={alias: store_choice(alias, given) for alias, given in wanted_stores.items()},
        executors={
            **BUILT_IN,
            **{alias: executor_choice(alias, given) for alias, given in wanted_executors.items()},
        },
        defaults=_defaults(wanted_defaults),
        zone=name,
        startup_delay=_number("startup_delay", delay, 0, MAX_DELAY_SECONDS),
        lock_path=path,
    )


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"asyncz.stores.default": x} as {"stores": {"default": x}}; the groups may be nested already."""
    made: dict[str, Any] = {}
    for key, value in flat.items():
        bare = next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)
        group, _, rest = bare.partition(".")
        if rest:
            made.setdefault(group, {})[rest] = value
        elif isinstance(value, Mapping):
            made.setdefault(group, {}).update(value)
        else:
            made[group] = value
    return made


def _defaults(given: Mapping[str, Any]) -> TaskDefaults:
    readers: dict[str, Callable[[str, Any], Any]] = {
        "mistrigger_grace_time": lambda name, value: None if value is None else _number(name, value, 0, 10**9),
        "coalesce": _flag,
        "max_instances": lambda name, value: None if value is None else int(_number(name, value, 1, 10_000)),
    }
    values = {}
    for name, value in given.items():
        member = "mistrigger_grace_time" if name == "misfire_grace_time" else name
        if member not in readers:
            raise ConfigurationError(f"task_defaults.{name}: unknown; known are {', '.join(readers)}")
        values[member] = readers[member](f"task_defaults.{name}", None if value in ("none", "None", "") else value)
    return TaskDefaults(**values)


def _flag(name: str, value: object) -> bool:
    text = str(value).lower()
    if text not in _TRUE + _FALSE:
        raise ConfigurationError(f"{name}={value!r:.100}: must be true or false")
    return text in _TRUE


def _number(name: str, value: object, low: float, high: float) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = float("nan")
    if isinstance(value, bool) or not low <= number <= high:
        raise ConfigurationError(f"{name}={value!r:.100}: must be a number from {low:g} to {high:g}")
    return number
