"""Options that several commands share, and the app or the store that they lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import asdict

from ...metadata.contract import Store
from ..app import Callboard
from ..errors import ConfigurationError
from ..registry import find_app, make_store
from ..settings import Settings, load_settings
from ..urls import scheme_of

_PANEL = "Connection (before CALLBOARD_* and callboard.toml)"

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        metavar="URL",
        rich_help_panel=_PANEL,
        help="Such as amqp://host:5672/; ?frames=plain speaks through aiormq's own framing. Other users of this "
        "machine can read command lines: a URL with a password belongs into CALLBOARD_BROKER or callboard.toml.",
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", rich_help_panel=_PANEL, help="Such as redis://host:6379/0; README.md lists them."
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NAME", rich_help_panel=_PANEL, help="Of all exchanges, queues and keys."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AppReference = Annotated[
    str | None, typer.Option("--app", metavar="MODULE:ATTRIBUTE", help="The app, such as myservice.jobs:app.")
]


class Given(Struct, frozen=True, kw_only=True):
    """The flags of one command that are settings; None: not given."""

    broker: str | None = None
    store: str | None = None
    namespace: str | None = None
    health_port: int | None = None
    health_host: str | None = None
    log_format: str | None = None
    metrics: str | None = None

    def under(self, context: typer.Context) -> Given:
        """These flags, completed by those given before a sub-command: `callboard queues --store URL pause emails`."""
        outer = context.parent.obj if context.parent is not None else None
        if not isinstance(outer, Given):
            return self
        return Given(
            broker=self.broker or outer.broker,
            store=self.store or outer.store,
            namespace=self.namespace or outer.namespace,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def make_app(reference: str | None, given: Given) -> Callboard:
    """The app a command works with: the one named, with the flags over its own settings, or one without tasks."""
    if reference is None:
        return Callboard(**given.settings)
    app = find_app(reference)
    if given.settings:
        app.configure(**given.settings)
    return app


def make_remote_app(reference: str | None, given: Given) -> Callboard:
    """An app that shares its store with the processes it is about."""
    app = make_app(reference, given)
    refuse_memory(app.settings)
    return app


@asynccontextmanager
async def opened_store(given: Given) -> AsyncIterator[Store]:
    """The store alone, for commands that only read: they answer while the broker is down."""
    settings = load_settings(**given.settings)
    refuse_memory(settings)
    store = make_store(settings.store.get_secret_value(), namespace=settings.namespace)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def refuse_memory(settings: Settings) -> None:
    if scheme_of(settings.store.get_secret_value()) == "memory":
        raise ConfigurationError(
            "the store is memory://, which lives in one process: there is nothing of it to be seen from here; "
            "give --store or CALLBOARD_STORE, such as redis://localhost:6379/0"
        )
