"""What one process shares: its broker, its store, and what stands on both."""

from __future__ import annotations

import logging
import secrets

from ..brokers.contract import Broker
from ..brokers.topology import Names
from ..metadata.contract import Check, Store
from .clock import Clock
from .dispatcher import Dispatcher
from .errors import ConfigurationError
from .listener import Listener
from .producer import Producer
from .registry import make_broker, make_store
from .settings import Settings

log = logging.getLogger("callboard")


class Connections:
    """Made closed; `open` connects. `boot` is this process's 128-bit random id. `broker` and `store`: in the place of
    those that the settings name."""

    def __init__(
        self, settings: Settings, clock: Clock, *, broker: Broker | None = None, store: Store | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.boot = secrets.token_hex(16)
        self.found: tuple[Check, ...] = ()  # of the store, when it was opened
        self.names = Names(settings.namespace, settings.queue_type)
        self.broker: Broker = broker or make_broker(
            settings.broker.get_secret_value(), name=f"{settings.namespace} {self.boot[:8]}"
        )
        self.store: Store = store or self.another_store()
        if self.broker.shared and not self.store.shared:
            raise ConfigurationError(
                f"the store {self.store.scheme}:// lives in one process, the broker {self.broker.scheme}:// serves "
                "many: jobs would be lost between them; set CALLBOARD_STORE, such as redis://localhost:6379/0"
            )

    def another_store(self) -> Store:
        """A second connection to the same store, for a thread of its own."""
        return make_store(self.settings.store.get_secret_value(), namespace=self.settings.namespace)

    async def open(self) -> None:
        """StoreUnavailable, StoreRefused, BrokerUnavailable: as they say."""
        await self.store.open()
        try:
            self.found = tuple(await self.store.check())
            for check in self.found:
                log.warning("store: %s", check.message)
            await self.broker.open()
            await self.broker.declare(self.names.exchanges())
        except BaseException:
            await self.broker.close()
            await self.store.close()
            raise
        self.dispatcher = Dispatcher(
            broker=self.broker,
            store=self.store,
            names=self.names,
            clock=self.clock,
            confirm_timeout=self.settings.confirm_timeout,
        )
        self.producer = Producer(store=self.store, dispatcher=self.dispatcher, settings=self.settings, clock=self.clock)
        self.listener = Listener(broker=self.broker, store=self.store, names=self.names, boot=self.boot)

    async def close(self) -> None:
        await self.producer.drain()
        await self.dispatcher.flush()
        await self.listener.close()
        await self.broker.close()
        await self.store.close()
