"""A metadata store in one file on disk, as a third party would bring one: `store="disk:///var/lib/jobs"`.

The file is a log of calls, in the order in which they took effect. Every process on it holds the state in a memory
store, and brings that up to date by calling what others have added since. A call is added under a lock, so that its
answer is the same for all. Small on purpose: the log only grows, and is read from its beginning by who opens it.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self, TypeVar, cast, get_type_hints
from urllib.parse import quote

import msgspec

from callboard.metadata import contract
from callboard.metadata.contract import Check
from callboard.metadata.errors import CapabilityMissing, StoreRefused, StoreUnavailable
from callboard.metadata.memory import MemoryStore
from callboard.metadata.standing import StandingClaims

C = TypeVar("C")
SIZE_BYTES = 4  # before each entry

# What changes nothing is not written down.
_READS = {
    "Deduplicating.holder", "Inspection.audit", "Inspection.counts", "Inspection.get", "Inspection.page",
    "Inspection.progress", "QueueControl.paused", "QueueControl.queues", "Schedules.count", "Schedules.due",
    "Schedules.get", "Schedules.page", "Workers.workers",
}  # fmt: skip


class Call(msgspec.Struct, frozen=True):
    """`capability` empty: the log's first entry, whose only argument is its epoch."""

    capability: str
    operation: str
    arguments: dict[str, Any]


class DiskStore:
    scheme: ClassVar[str] = "disk"
    shared: ClassVar[bool] = True
    server_time: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._state = MemoryStore()
        self._epoch = ""
        # Of standing claims the other processes would have to hear.
        self._capabilities = {one.__name__: one for one in self._state.capabilities if one is not StandingClaims}

    @classmethod
    def from_url(cls, url: str, *, namespace: str) -> Self:
        folder = url.removeprefix("disk://")
        if not folder.startswith("/"):
            raise StoreRefused(f"the disk store's URL must name a folder, as disk:///var/lib/jobs does, not {url!r}")
        return cls(Path(folder) / f"{quote(namespace, safe='')}.log")

    @property
    def durable(self) -> bool:
        return False  # an entry is handed to the operating system, not waited for until it is on the disk

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def version(self) -> str:
        return ""

    @property
    def capabilities(self) -> frozenset[type]:
        return frozenset(self._capabilities.values())

    def get(self, capability: type[C]) -> C:
        if capability not in self.capabilities:
            raise CapabilityMissing(capability=capability.__name__, store=self.scheme)
        return cast(C, _Offer(self, capability.__name__, self._state.get(capability)))

    async def open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise StoreUnavailable(str(self._path), str(error)) from error
        self._file.seek(0)
        self._state, self._epoch = MemoryStore(), ""
        with self._locked() as file:
            await self._catch_up(file)
            if not self._epoch:
                self._epoch = secrets.token_hex(16)
                _add(file, Call("", "", {"epoch": self._epoch}))

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    async def read_epoch(self) -> str:
        await self.ping()
        return self._epoch

    async def ping(self) -> None:
        if self._file is None:
            raise StoreUnavailable(str(self._path), "it is not open")

    async def check(self) -> Sequence[Check]:
        return [Check("disk", "its log only grows, and is read from its beginning by who opens it")]

    async def call(self, call: Call) -> object:
        """Nothing here waits for anything but the disk and the lock, so calls of one process do not meet either."""
        with self._locked() as file:
            await self._catch_up(file)
            answer = await self._apply(call)
            if f"{call.capability}.{call.operation}" not in _READS:
                _add(file, call)
            return answer

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        if self._file is None:
            raise StoreUnavailable(str(self._path), "it is not open")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield self._file
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    async def _catch_up(self, file: BinaryIO) -> None:
        while size := file.read(SIZE_BYTES):
            call = msgspec.msgpack.decode(file.read(int.from_bytes(size, "big")), type=Call)
            if call.capability:
                await self._apply(call)
            else:
                self._epoch = call.arguments["epoch"]

    async def _apply(self, call: Call) -> object:
        capability = self._capabilities[call.capability]
        operation: Callable[..., Awaitable[object]] = getattr(self._state.get(capability), call.operation)
        wanted = get_type_hints(getattr(capability, call.operation))
        arguments = {name: msgspec.convert(value, wanted[name]) for name, value in call.arguments.items()}
        return await operation(**arguments)


class _Offer:
    """A capability whose operations go by the log."""

    def __init__(self, store: DiskStore, capability: str, offered: object) -> None:
        for name, hints in _operations(capability).items():

            async def call(
                *values: object, _name: str = name, _names: Sequence[str] = hints, **named: object
            ) -> object:
                arguments = dict(zip(_names, values, strict=False)) | named
                plain = msgspec.to_builtins(arguments, builtin_types=(bytes,))
                return await store.call(Call(capability, _name, plain))

            setattr(self, name, call)


def _operations(capability: str) -> dict[str, list[str]]:
    """Each operation's parameters, in their order."""
    protocol = next(one for one in contract.CAPABILITIES if one.__name__ == capability)
    return {
        name: [parameter for parameter in get_type_hints(member) if parameter != "return"]
        for name, member in vars(protocol).items()
        if callable(member) and not name.startswith("_")
    }


def _add(file: BinaryIO, call: Call) -> None:
    entry = msgspec.msgpack.encode(call)
    file.write(len(entry).to_bytes(SIZE_BYTES, "big") + entry)
    file.flush()
