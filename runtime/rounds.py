"""An actor that works in rounds: look, do what is due, sleep until there is more, be woken by a command."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from ..metadata.errors import StoreUnavailable
from .actor import Actor, Mailbox, Stage
from .errors import InvalidJob
from .job_id import check_queue
from .known_queues import KnownQueues
from .wire import Command


class RoundsActor(Actor):
    """A store that is away is waited for, with growing pauses; everything else that goes wrong ends the actor."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.queues = KnownQueues(stage)
        self._woken = asyncio.Event()
        self._mailbox = Mailbox(self, keys=(f"{self.kind}.#",))

    @abstractmethod
    async def round(self) -> float:
        """One round; the seconds until the next one, if nobody wakes the actor before."""

    def missed(self) -> None:
        """A round could not be made: the store was away."""

    def receive(self, command: Command) -> None:
        if command.queue is not None:
            try:
                self.queues.add(check_queue(command.queue))
            except InvalidJob as error:
                self.stage.log.warning("ignored a command: %s", error)
                return
        self._woken.set()

    def hears_again(self) -> None:
        self.queues.read_again()
        self._woken.set()

    async def run(self) -> None:
        await self._mailbox.open()
        try:
            await self._work()
        finally:
            await self._mailbox.close()

    async def _work(self) -> None:
        failures = 0
        while not self.stage.stopping.is_set():
            self._woken.clear()
            try:
                pause = await self.round()
            except StoreUnavailable as error:
                if failures == 0:
                    self.stage.log.warning("%s; trying again", error)
                failures += 1
                self.missed()
                pause = self.stage.backoff(failures)
            else:
                self.stage.working = True
                if failures:
                    self.stage.log.warning("the store is back")
                failures = 0
            if pause > 0:
                await self.stage.sleep(pause, self._woken)
