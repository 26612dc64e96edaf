"""Keeps actors running, in OTP's words: a child that fails is started again after a growing, jittered delay; one that
fails more often than the restart intensity allows takes the supervisor, and with it the process, down."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from .actor import Actor, Stage
from .clock import Clock
from .errors import ActorEnded, ConfigurationError, GaveUp

if TYPE_CHECKING:
    from .app import Callboard

log = logging.getLogger("callboard.supervisor")

MAX_RESTARTS = 5
WITHIN_SECONDS = 60.0

MakeStage = Callable[[type[Actor]], Stage]


class Child:
    """One actor, over all its restarts."""

    def __init__(self, actor: type[Actor], make_stage: MakeStage, clock: Clock, random: Random) -> None:
        self._actor = actor
        self._make_stage = make_stage
        self._clock = clock
        self._random = random
        self._failed: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        self._stopping = asyncio.Event()
        self._mailbox: str | None = None
        self.stage: Stage | None = None
        self.restarts = 0

    @property
    def kind(self) -> str:
        return self._actor.kind

    @property
    def working(self) -> bool:
        """It does its work: it neither starts nor waits for its next start, and is not being stopped."""
        return self.stage is not None and self.stage.working and not self._stopping.is_set()

    async def run(self) -> None:
        """Until the actor ends because it was stopped. Raises GaveUp, ConfigurationError."""
        while not self._stopping.is_set():
            self.stage = stage = self._make_stage(self._actor)
            # One queue over all starts: with each a new one, the broker would keep those before it, and fill them.
            self._mailbox = stage.mailbox = self._mailbox or stage.mailbox
            try:
                await self._actor(stage).run()
                if self._stopping.is_set():
                    return
                raise ActorEnded(self._actor.kind)
            except ConfigurationError:  # it would be no better the next time
                raise
            except asyncio.CancelledError as error:
                if self._stopping.is_set() or _is_cancelled():
                    raise
                await self._failed_with(error)  # what it waited for was cancelled: unseen, it would be gone for good
            except Exception as error:  # an actor may fail in any way; that is what a supervisor is for
                if self._stopping.is_set():
                    raise
                await self._failed_with(error)

    def stop(self, *, hurry: bool) -> None:
        self._stopping.set()
        if self.stage is not None:
            self.stage.stop(hurry=hurry)

    async def _failed_with(self, error: BaseException) -> None:
        now = self._clock.elapsed()
        self._failed.append(now)
        recent = sum(1 for moment in self._failed if now - moment < WITHIN_SECONDS)
        if recent > MAX_RESTARTS:
            raise GaveUp(self._actor.kind, restarts=recent, seconds=WITHIN_SECONDS) from error
        self.stage = None
        self.restarts += 1
        delay = self._random.uniform(0.5, 1.0) * min(10.0, 0.2 * 2.0**recent)
        log.error("actor %s failed; starting it again in %.1f s", self._actor.kind, delay, exc_info=error)
        stopping = asyncio.ensure_future(self._stopping.wait())
        pause = asyncio.ensure_future(self._clock.sleep(delay))
        await asyncio.wait([stopping, pause], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        pause.cancel()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Supervisor:
    """Runs children until they are stopped, or one gives up: then the others are stopped in order first."""

    def __init__(self, app: Callboard, make_stage: MakeStage, actors: list[type[Actor]], random: Random) -> None:
        self.children = [Child(actor, make_stage, app.clock, random) for actor in actors]

    def stop(self, *, hurry: bool = False) -> None:
        for child in self.children:
            child.stop(hurry=hurry)

    async def run(self) -> None:
        """Raises GaveUp, ConfigurationError, or what an actor raised while it was being stopped."""
        tasks = [asyncio.create_task(child.run()) for child in self.children]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            self.stop()
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
