"""A scheduler in an ASGI server: it runs from the server's start to its end, in the server's own event loop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lifetime import Lifetime

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = logging.getLogger("callboard.schedulers.asgi")


class Asgi:
    """The app inside is told of the lifespan after the scheduler has started, and before it stops; with
    `handle_lifespan` it is not told. A start that fails is told to the server, which then does not serve."""

    def __init__(self, app: AsgiApp, scheduler: Lifetime, *, handle_lifespan: bool, wait: bool) -> None:
        self.app = app
        self.scheduler = scheduler
        self._handle_lifespan = handle_lifespan
        self._wait = wait

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
        elif self._handle_lifespan:
            await self._alone(receive, send)
        else:
            await self._around(scope, receive, send)

    async def _alone(self, receive: Receive, send: Send) -> None:
        await receive()
        if not await self._started(send):
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stopped(send, {"type": "lifespan.shutdown.complete"})

    async def _around(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Start when the server says so, before the app hears it; stop when the app has said that it is over."""
        started = False

        async def receive_and_start() -> Message:
            nonlocal started
            message = await receive()
            if message["type"] == "lifespan.startup":
                if not await self._started(send):
                    raise _StartFailed
                started = True
            return message

        async def stop_and_send(message: Message) -> None:
            nonlocal started
            ends = message["type"] in (
                "lifespan.shutdown.complete",
                "lifespan.shutdown.failed",
                "lifespan.startup.failed",
            )
            if started and ends:
                started = False
                await self._stopped(send, message)
            else:
                await send(message)

        try:
            await self.app(scope, receive_and_start, stop_and_send)
        except _StartFailed:
            return
        finally:
            if started:  # the app left without a word
                await self.scheduler.leave(wait=self._wait)

    async def _started(self, send: Send) -> bool:
        try:
            await self.scheduler.enter(paused=False)
        except Exception as error:  # the server wants to hear of any
            log.exception("the scheduler could not be started")
            await send({"type": "lifespan.startup.failed", "message": f"scheduler: {error}"})
            return False
        return True

    async def _stopped(self, send: Send, message: Message) -> None:
        try:
            await self.scheduler.leave(wait=self._wait)
        except Exception as error:  # as above
            log.exception("the scheduler ended with an error")
            await send({"type": "lifespan.shutdown.failed", "message": f"scheduler: {error}"})
            return
        await send(message)


class _StartFailed(BaseException):
    """Takes the way out of the app inside; past what that does with errors."""
