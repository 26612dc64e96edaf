"""Finds plug-ins (stores, brokers, actors) by name through entry points, and an app by `package.module:attribute`.

This is the only module that imports by name, and the names come from the command line, the settings and installed
packages' entry points, never from a message.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from ..brokers.contract import Broker
from ..metadata.contract import Store
from .errors import ConfigurationError
from .urls import masked, scheme_of

if TYPE_CHECKING:
    from .actor import Actor
    from .app import Callboard

STORES = "callboard.stores"
BROKERS = "callboard.brokers"
ACTORS = "callboard.actors"

_EXTRAS = {"redis": "redis", "rediss": "redis", "mongodb": "mongo"}  # by the scheme up to a +


def make_store(url: str, *, namespace: str) -> Store:
    """A store for the URL, not yet open. ConfigurationError: no store of that scheme is installed."""
    return store_class(url).from_url(url, namespace=namespace)


def store_class(url: str) -> type[Store]:
    """The class that serves the URL's scheme. ConfigurationError: none is installed."""
    return cast(type[Store], _load(STORES, scheme_of(url), url))


def make_broker(url: str, *, name: str) -> Broker:
    return cast(type[Broker], _load(BROKERS, scheme_of(url), url)).from_url(url, name=name)


def actor_names() -> list[str]:
    return sorted(entry.name for entry in entry_points(group=ACTORS))


def find_actor(name: str) -> type[Actor]:
    for entry in entry_points(group=ACTORS, name=name):
        return cast("type[Actor]", entry.load())
    raise ConfigurationError(f"there is no actor {name!r}; installed are: {', '.join(actor_names())}")


def find_app(reference: str) -> Callboard:
    """The app at `package.module:attribute`, looked for in the working directory too, as python -m does."""
    from .app import Callboard  # the app's module imports this one

    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute or module_name.startswith("."):  # relative to nothing
        raise ConfigurationError(f"--app must look like package.module:app, not {reference!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigurationError(f"--app {reference}: there is no module {error.name!r} to import") from None
        raise
    app: Any = module
    for name in attribute.split("."):
        if not hasattr(app, name):
            raise ConfigurationError(f"--app {reference}: module {module_name!r} has no {attribute!r}")
        app = getattr(app, name)
    if not isinstance(app, Callboard):
        raise ConfigurationError(f"--app {reference} is a {type(app).__name__}, not a Callboard")
    return app


def _load(group: str, scheme: str, url: str) -> object:
    for entry in entry_points(group=group, name=scheme):
        try:
            return cast(object, entry.load())
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get(scheme.partition("+")[0])
            hint = f"; install it with: pip install 'callboard[{extra}]'" if extra else ""
            raise ConfigurationError(f"{masked(url)} needs the package {error.name!r}{hint}") from error
    known = ", ".join(sorted(f"{entry.name}://" for entry in entry_points(group=group)))
    kind = "store" if group == STORES else "broker"
    raise ConfigurationError(f"no {kind} is installed for {masked(url)}; known are: {known}")
