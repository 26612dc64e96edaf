"""Standing claims in a simulated world: what is handed over travels to its worker, in order, or the way is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ....metadata.memory.standing import MemoryStandingClaims
from ....metadata.standing import Handed, Hearing, StandingClaims
from .loop import Process

if TYPE_CHECKING:
    from .store import SimulatedStore
    from .world import World


class SimulatedStandingClaims:
    def __init__(self, store: SimulatedStore, world: World, process: Process) -> None:
        self._store = store
        self._world = world
        self._process = process
        self._hearings: list[SimulatedHearing] = []

    def disconnect(self) -> None:
        for hearing in self._hearings:
            hearing.end()

    async def hear(
        self, owner: str, queues: Sequence[str], *, told: Callable[[Handed], None], deaf: Callable[[], None]
    ) -> Hearing:
        hearing = SimulatedHearing(self._world, self._process, owner, told=told, deaf=deaf)

        async def begin() -> None:
            hearing.begin(queues)

        self._hearings.append(hearing)
        await self._store.ask("hear", begin)
        return hearing

    async def stand(self, queue: str, owner: str, *, jobs: int) -> bool:
        claims = self._world.store.get(StandingClaims)

        async def stand() -> bool:
            return await claims.stand(queue, owner, jobs=jobs)

        return bool(await self._store.ask("stand", stand))


class SimulatedHearing:
    def __init__(
        self,
        world: World,
        process: Process,
        owner: str,
        *,
        told: Callable[[Handed], None],
        deaf: Callable[[], None],
    ) -> None:
        self._world = world
        self._process = process
        self._owner = owner
        self._told = told
        self._deaf = deaf
        self._arrived = 0.0  # when all that is on its way will have
        self._stop: Callable[[], None] | None = None
        self._lost = False

    def begin(self, queues: Sequence[str]) -> None:
        if self._stop is None and not self._lost:  # else a request came twice, or late
            claims = self._world.store.get(StandingClaims)
            assert isinstance(claims, MemoryStandingClaims)
            self._stop = claims.listen(self._owner, queues, self._handed)

    async def sync(self) -> None:
        """As a PING behind it, which is lost with the way."""
        world = self._world
        fate = world.fate_of_call(self._process)
        await asyncio.sleep(fate.there)
        if fate.back is None:
            self.end()
        await asyncio.sleep(max(fate.back or 0.0, self._arrived - world.loop.time()))

    async def close(self) -> None:
        self.end()

    def _handed(self, handed: Handed) -> None:
        world, process, loop = self._world, self._process, self._world.loop
        world.watch.handed(process.name, handed, self._owner)
        fate = world.fate_of_call(process)
        if fate.dies:
            loop.call_later(fate.there, loop.crash, process, context=loop.outside.context)
        elif fate.back is None:
            self.end()
            loop.call_later(world.random.random(), self._deaf, context=process.context)
        else:
            self._arrived = max(self._arrived, loop.time() + fate.there)
            loop.call_at(self._arrived, self._tell, handed, context=process.context)

    def _tell(self, handed: Handed) -> None:
        if not self._lost:
            self._told(handed)

    def end(self) -> None:
        self._lost = True
        if self._stop is not None:
            self._stop()
            self._stop = None
