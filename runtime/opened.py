"""What is open of an app. A process has one of these; the simulator, which plays many processes in one, gives each its
own."""

from __future__ import annotations

import asyncio

from .clock import Clock
from .connections import Connections
from .errors import ConfigurationError
from .settings import Settings


class Opened:
    def __init__(self) -> None:
        self.connections: Connections | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the connections
        self._times = 0
        self._changing = asyncio.Lock()

    def connect(self, settings: Settings, clock: Clock) -> Connections:
        """Made closed."""
        return Connections(settings, clock)

    async def open(self, settings: Settings, clock: Clock) -> None:
        async with self._changing:
            loop = asyncio.get_running_loop()
            if self.connections is None:
                connections = self.connect(settings, clock)
                await connections.open()
                self.connections, self._loop = connections, loop
            elif self._loop is not loop:
                raise ConfigurationError("the app is open in another event loop; make another app for this one")
            self._times += 1

    async def close(self) -> None:
        async with self._changing:
            if self._times == 0:
                raise ConfigurationError("the app is not open: there is one close() for each open()")
            self._times -= 1
            if self._times == 0 and self.connections is not None:
                connections, self.connections = self.connections, None
                await connections.close()
