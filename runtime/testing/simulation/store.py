"""A process's connection to the store of a simulated world: each operation travels, is done in one step, and travels
back, unless something happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from ....metadata.contract import Check
from ....metadata.errors import StoreUnavailable
from ....metadata.memory import MemoryStore
from ....metadata.standing import StandingClaims
from .faults import Fate
from .loop import Process
from .standing import SimulatedStandingClaims

if TYPE_CHECKING:
    from .world import World

C = TypeVar("C")


class SimulatedStore:
    """`shared` is False, so that hearts beat in their process's own loop: there are no threads here."""

    scheme: ClassVar[str] = "simulated"
    shared: ClassVar[bool] = False
    server_time: ClassVar[bool] = False

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._offers: dict[type, object] = {}
        self._standing = SimulatedStandingClaims(self, world, process)

    @classmethod
    def from_url(cls, url: str, *, namespace: str) -> Self:
        raise TypeError("a simulated store is made by its world")

    @property
    def durable(self) -> bool:
        return self._world.durable

    @property
    def epoch(self) -> str:
        return self._memory.epoch

    @property
    def version(self) -> str:
        return ""

    @property
    def capabilities(self) -> frozenset[type]:
        return self._memory.capabilities

    def get(self, capability: type[C]) -> C:
        offer = self._offers.get(capability)
        if capability is StandingClaims:
            offer = self._standing
        elif offer is None:
            offer = self._offers[capability] = _Capability(self, self._memory.get(capability))
        return cast(C, offer)

    async def open(self) -> None:
        await self.ask("open", self._memory.open)

    async def read_epoch(self) -> str:
        return cast(str, await self.ask("read_epoch", self._memory.read_epoch))

    async def close(self) -> None: ...

    def disconnect(self) -> None:
        """Its process is gone, and what it was to be told is lost."""
        self._standing.disconnect()

    async def ping(self) -> None:
        await self.ask("ping", self._memory.ping)

    async def check(self) -> Sequence[Check]:
        await self.ask("ping", self._memory.ping)
        return []

    @property
    def _memory(self) -> MemoryStore:
        return self._world.store

    def ask(
        self, name: str, operation: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        world, process, loop = self._world, self._process, self._world.loop
        fate = world.fate_of_call(process)
        answer: asyncio.Future[Any] = loop.create_future()
        if fate.gives_up is not None:
            loop.call_later(fate.gives_up, _give_up, answer, name)
        loop.call_later(
            fate.there, self._serve, answer, fate, name, operation, args, kwargs, context=loop.outside.context
        )
        return answer

    def _serve(
        self,
        answer: asyncio.Future[Any],
        fate: Fate,
        name: str,
        operation: Callable[..., Coroutine[Any, Any, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        world, process = self._world, self._process
        said: object = None
        error: Exception | None = None
        for _ in range(fate.times):
            try:
                said = step(operation(*args, **kwargs))
            except Exception as raised:
                error = raised
            else:
                error = None
                world.watch.answered(process.name, name, args, kwargs, said)
        if fate.dies:
            world.loop.crash(process)
        elif fate.back is not None:
            world.loop.call_later(fate.back, _tell, answer, said, error, context=process.context)


class _Capability:
    """Every operation of one capability, as its contract names them."""

    def __init__(self, store: SimulatedStore, offer: object) -> None:
        self._store = store
        self._offer = offer

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        store, operation = self._store, getattr(self._offer, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await store.ask(name, operation, *args, **kwargs)

        self.__dict__[name] = call
        return call


def step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing, as all in memory do."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("an operation in memory waited")


def _give_up(answer: asyncio.Future[Any], name: str) -> None:
    if not answer.done():
        answer.set_exception(StoreUnavailable("simulated://", f"{name}: no answer"))


def _tell(answer: asyncio.Future[Any], said: object, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(said)
    else:
        answer.set_exception(error)
