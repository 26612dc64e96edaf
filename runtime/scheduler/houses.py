"""The houses of a scheduler: one for each store that it was told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..app import Callboard
from ..errors import ConfigurationError
from ..settings import MEMORY
from ..urls import scheme_of
from .configuration import DEFAULT_ALIAS, Configuration
from .house import House
from .task import ScheduledTask

MakeHouse = Callable[[Callboard, str], House]


def make_houses(
    app: Callboard | None,
    tasks: Mapping[tuple[str, str], ScheduledTask],
    *,
    configuration: Configuration,
    settings: Mapping[str, str | None],
    make: MakeHouse,
) -> dict[str, House]:
    """By alias, closed; every task's function is registered and its queue known. Raises ConfigurationError."""
    aliases = dict.fromkeys([DEFAULT_ALIAS, *configuration.stores, *(store for store, _ in tasks)])
    houses = {alias: make(_app_of(alias, app, configuration, settings), alias) for alias in aliases}
    for (alias, _), task in tasks.items():
        houses[alias].register(task)
        houses[alias].serve([task])
    if app is not None:
        houses[DEFAULT_ALIAS].serve([ScheduledTask(task) for task in app.tasks.values()])
    return houses


def _app_of(
    alias: str, app: Callboard | None, configuration: Configuration, settings: Mapping[str, str | None]
) -> Callboard:
    if alias == DEFAULT_ALIAS and app is not None:
        return app
    choice = configuration.stores.get(alias)
    if choice is None and alias != DEFAULT_ALIAS:
        known = ", ".join({DEFAULT_ALIAS: None, **configuration.stores})
        raise ConfigurationError(f"there is no store {alias!r:.100}; known are {known}")
    given: dict[str, Any] = dict(settings)
    if choice is not None:
        given["store"] = choice.url
        if scheme_of(choice.url) == scheme_of(MEMORY):
            given["broker"] = MEMORY
    made = Callboard(**given)
    if alias != DEFAULT_ALIAS:  # jobs of two stores must not meet in one queue of a broker
        made.configure(namespace=f"{made.settings.namespace}-{alias}")
    return made
