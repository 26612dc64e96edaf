"""Which store, which executor: values that say so, under the names that Asyncz has for its classes.

A store is an app's store, so that each alias has an app, a broker and a namespace of its own. An executor is a queue of
that name, with a worker of its own: `max_workers` is what it runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from ..errors import ConfigurationError
from ..settings import MEMORY
from ..urls import masked

DEFAULT_WORKERS = 10
MAX_WORKERS = 10_000


class ExecutorKind(StrEnum):
    ASYNCIO = "asyncio"  # async functions on the loop, others in threads
    THREADPOOL = "threadpool"  # functions that are not async, in threads
    PROCESSPOOL = "processpool"  # either, in child processes
    DEBUG = "debug"  # all on the loop itself, which waits meanwhile


class ExecutorChoice(Struct, frozen=True, kw_only=True):
    kind: ExecutorKind
    max_workers: int = DEFAULT_WORKERS


class StoreChoice(Struct, frozen=True):
    """`url` may hold a password; it is not shown."""

    url: str

    def __repr__(self) -> str:
        return f"StoreChoice({masked(self.url)!r})"


def MemoryStore() -> StoreChoice:
    return StoreChoice(MEMORY)


def RedisStore(
    url: str | None = None,
    *,
    host: str = "localhost",
    port: int | str = 6379,
    database: int | str = 0,
    username: str = "",
    password: str = "",
) -> StoreChoice:
    return StoreChoice(url or f"redis://{_login(username, password)}{host}:{_whole(port, 'port')}/{database}")


def MongoDBStore(
    url: str | None = None,
    *,
    host: str = "localhost",
    port: int | str = 27017,
    database: str = "callboard",
    username: str = "",
    password: str = "",
) -> StoreChoice:
    return StoreChoice(url or f"mongodb://{_login(username, password)}{host}:{_whole(port, 'port')}/{database}")


def AsyncIOExecutor(max_workers: int | str = DEFAULT_WORKERS) -> ExecutorChoice:
    return _executor(ExecutorKind.ASYNCIO, max_workers)


def ThreadPoolExecutor(max_workers: int | str = DEFAULT_WORKERS) -> ExecutorChoice:
    return _executor(ExecutorKind.THREADPOOL, max_workers)


def ProcessExecutor(max_workers: int | str = 2) -> ExecutorChoice:
    return _executor(ExecutorKind.PROCESSPOOL, max_workers)


def DebugExecutor() -> ExecutorChoice:
    return _executor(ExecutorKind.DEBUG, 1)


_STORES: Mapping[str, Callable[..., StoreChoice]] = {
    **{"memory": MemoryStore, "MemoryStore": MemoryStore, "MemoryTaskStore": MemoryStore},
    **{"redis": RedisStore, "RedisStore": RedisStore},
    **{"mongodb": MongoDBStore, "mongo": MongoDBStore, "MongoDBStore": MongoDBStore},
}
_EXECUTORS: Mapping[str, Callable[..., ExecutorChoice]] = {
    **{"asyncio": AsyncIOExecutor, "AsyncIOExecutor": AsyncIOExecutor},
    **{"threadpool": ThreadPoolExecutor, "pool": ThreadPoolExecutor, "ThreadPoolExecutor": ThreadPoolExecutor},
    **{"processpool": ProcessExecutor, "ProcessExecutor": ProcessExecutor, "ProcessPoolExecutor": ProcessExecutor},
    **{"debug": DebugExecutor, "DebugExecutor": DebugExecutor},
}


def store_choice(alias: str, given: object) -> StoreChoice:
    """From a choice, a URL, a type's name or a mapping with `type` (or `class`) and what the type takes. A class is
    known by its name alone; nothing is imported. Raises ConfigurationError."""
    if isinstance(given, StoreChoice):
        return given
    if isinstance(given, str) and "://" in given:
        return StoreChoice(given)
    made = _made(f"store {alias!r}", given, _STORES)
    assert isinstance(made, StoreChoice)
    return made


def executor_choice(alias: str, given: object) -> ExecutorChoice:
    """As `store_choice`."""
    if isinstance(given, ExecutorChoice):
        return given
    made = _made(f"executor {alias!r}", given, _EXECUTORS)
    assert isinstance(made, ExecutorChoice)
    return made


def _made(what: str, given: object, makers: Mapping[str, Callable[..., object]]) -> object:
    members: dict[str, Any] = {"type": given} if isinstance(given, str) else {}
    if isinstance(given, Mapping):
        members = dict(given)
    kind = members.pop("class", None) or members.pop("type", None)
    members.pop("type", None)
    name = kind.rpartition(":")[2].rpartition(".")[2] if isinstance(kind, str) else None
    if name is None or name not in makers:
        raise ConfigurationError(f"{what}: type {kind!r:.200} is not one of {', '.join(makers)}")
    try:
        return makers[name](**members)
    except TypeError as error:
        raise ConfigurationError(f"{what}: {error}") from None


def _executor(kind: ExecutorKind, max_workers: int | str) -> ExecutorChoice:
    workers = _whole(max_workers, "max_workers")
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigurationError(f"max_workers={workers}: must be from 1 to {MAX_WORKERS}")
    return ExecutorChoice(kind=kind, max_workers=workers)


def _whole(value: int | str, name: str) -> int:
    if isinstance(value, bool) or not str(value).isdecimal():
        raise ConfigurationError(f"{name}={value!r}: must be a whole number")
    return int(value)


def _login(username: str, password: str) -> str:
    return f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""


# What every scheduler has.
BUILT_IN: Mapping[str, ExecutorChoice] = {
    "default": AsyncIOExecutor(),
    **{name: make() for name, make in _EXECUTORS.items() if name.islower()},
}
