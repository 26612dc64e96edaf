"""The way to the server that holds a key (`route.py`): script calls by one pipelined connection (`pipe.py`), plain
commands by the driver.

Every call may be repeated (that is the contract of the operations), so what was lost with a connection is sent again
once, over a new one, and what a cluster redirects is sent again, to whom it names. A call never waits longer than the
address's timeout for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from redis.exceptions import NoScriptError, RedisError

from ..errors import StoreRefused, StoreUnavailable
from .address import Address
from .ear import Ear
from .failures import is_closed_transport, translated
from .keys import Keys
from .node import Node
from .pipe import Lost, encode
from .route import Route, make_route
from .scripts import Script, read_scripts

REPEATS = 5  # of one call that a cluster redirects

T = TypeVar("T")
Call = tuple[str, Any]  # queue, arguments
Parts = Sequence[str | bytes | int]

_packed = msgspec.msgpack.Encoder().encode


class _Known:
    """The beginning of a script's call, ready to be written: what differs follows."""

    def __init__(self, script: Script) -> None:
        self.by_sha = b"*5\r\n" + encode(b"EVALSHA", script.sha.encode())[4:]
        self.by_text = b"*5\r\n" + encode(b"EVAL", script.text.encode())[4:]


class RedisConnection:
    def __init__(self, address: Address, keys: Keys) -> None:
        self.address = address
        self.keys = keys
        self._scripts = read_scripts()
        self._calls = {name: _Known(script) for name, script in self._scripts.items()}
        self._route: Route | None = None

    async def open(self) -> None:
        """Find the way. To a single server nothing is sent yet."""
        if self._route is not None:
            return
        self._check_files()
        route = make_route(self.address)
        try:
            await self._guarded(route.open)
        except BaseException:
            await route.close()
            raise
        self._route = route

    async def close(self) -> None:
        route, self._route = self._route, None
        if route is not None:
            await route.close()

    async def load_scripts(self) -> None:
        """To every server that does not have them."""
        scripts = tuple(self._scripts.values())

        async def load(node: Node) -> None:
            known = await _execute(node, "SCRIPT EXISTS", *(script.sha for script in scripts))
            missing = [script.text for script, there in zip(scripts, known, strict=True) if not there]
            if missing:
                await _pipeline(node, [("SCRIPT LOAD", text) for text in missing])

        await self._routed(lambda route: _all(load(node) for node in route.masters))

    async def run(self, script: str, queue: str, arguments: Any) -> Any:
        """Run one script on one queue: one round trip."""
        return (await self.run_each(script, ((queue, arguments),)))[0]

    async def run_each(self, script: str, calls: Sequence[Call]) -> list[Any]:
        """Run one script on several queues: one round trip, each queue atomic for itself.

        By the script's SHA1; a server that has forgotten it (restart, SCRIPT FLUSH) is sent the text, and keeps it.
        Several calls are repeated whole, also where some of them were run: that is harmless.
        """
        if not calls:
            return []
        route, known, of_queue = self._open_route(), self._calls[script], self.keys.of_queue
        keys = [of_queue(queue) for queue, _ in calls]
        operands = [
            _operands(key.encode(), _packed(arguments)) for key, (_, arguments) in zip(keys, calls, strict=True)
        ]
        version = route.version
        try:
            try:
                return await _asked(route, keys, [known.by_sha + one for one in operands])
            except (NoScriptError, Lost):
                # Not on a route that was closed meanwhile: nobody would close its new connection.
                return await _asked(self._open_route(), keys, [known.by_text + one for one in operands])
        except (RedisError, OSError) as error:
            if not await route.mended(error, version):
                raise translated(error, self.address.name) from error
        return await self._routed(lambda route: _asked(route, keys, [known.by_text + one for one in operands]))

    async def hear(
        self,
        channels: Sequence[bytes],
        *,
        heard: Callable[[bytes, bytes], None],
        deaf: Callable[[], None],
        ear: Ear | None = None,
    ) -> Ear:
        """Be told what is published there from now on, in a connection of its own, or by `ear` too; see `Ear`. Of one
        server, not of a cluster."""
        ear = ear or self._open_route().masters[0].ear(heard, deaf)
        try:
            await self._guarded(lambda: ear.subscribe(channels))
        except BaseException:
            await ear.close()
            raise
        return ear

    async def command(self, name: str, key: str, *more: str | bytes | int) -> Any:
        """A command on one key."""
        return await self.command_near(key, name, key, *more)

    async def command_near(self, key: str, *parts: str | bytes | int) -> Any:
        """A command of any kind, to the server that holds `key`."""
        return await self._routed(lambda route: _execute(route.node_of(key), *parts))

    async def commands(self, commands: Sequence[tuple[str, str]]) -> list[Any]:
        """Commands of a name and a key in one round trip, without a transaction."""
        keys = [key for _, key in commands]

        async def call(route: Route) -> list[Any]:
            return await _spread(route, keys, commands, _pipeline)

        return await self._routed(call)

    async def everywhere(self, *commands: Parts) -> Mapping[str, Sequence[Any]]:
        """The answers of each server that holds keys, by its name, in one round trip. All but the first may be None,
        where a server does not let us."""

        async def call(route: Route) -> Mapping[str, Sequence[Any]]:
            nodes = route.masters
            answers = await _all(_pipeline(node, commands, first_only=True) for node in nodes)
            return {node.name: answer for node, answer in zip(nodes, answers, strict=True)}

        return await self._routed(call)

    async def _routed(self, call: Callable[[Route], Awaitable[T]]) -> T:
        """Call, and again where the way has changed."""
        route = self._open_route()
        for _ in range(REPEATS):
            version = route.version
            try:
                return await self._in_transport(call(route))
            except (RedisError, OSError) as error:
                if not await route.mended(error, version):
                    raise translated(error, self.address.name) from error
        return await self._guarded(lambda: call(route))

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._in_transport(call())
        except (RedisError, OSError) as error:
            raise translated(error, self.address.name) from error

    async def _in_transport(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except RuntimeError as error:
            if not is_closed_transport(error):
                raise
            raise StoreUnavailable(self.address.name, "the connection was lost before a command was sent") from error

    def _open_route(self) -> Route:
        if self._route is None:
            raise StoreUnavailable(self.address.name, "it is not open")
        return self._route

    def _check_files(self) -> None:
        for option, path in self.address.files.items():
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise StoreRefused(f"the file {option}={path} cannot be read: {error.strerror}") from error


def _operands(key: bytes, packed: bytes) -> bytes:
    return b"$1\r\n1\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(packed), packed)


def _asked(route: Route, keys: Sequence[str], commands: Sequence[bytes]) -> Awaitable[list[Any]]:
    if len(keys) == 1:
        return route.node_of(keys[0]).ask(commands)
    return _spread(route, keys, commands, lambda node, ours: node.ask(ours))


async def _spread(
    route: Route, keys: Sequence[str], calls: Sequence[T], send: Callable[[Node, Sequence[T]], Awaitable[list[Any]]]
) -> list[Any]:
    """The answers to calls, each of which goes to the server of its key: to each server at once, at the same time."""
    places: dict[Node, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(route.node_of(key), []).append(place)
    if len(places) == 1:
        return await send(next(iter(places)), calls)
    groups = await _all(send(node, [calls[place] for place in ours]) for node, ours in places.items())
    answers: list[Any] = [None] * len(calls)
    for ours, group in zip(places.values(), groups, strict=True):
        for place, answer in zip(ours, group, strict=True):
            answers[place] = answer
    return answers


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Each to its end, so that none is left alone; then the first failure, if any."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast(list[T], answers)


async def _pipeline(node: Node, commands: Sequence[Parts], *, first_only: bool = False) -> list[Any]:
    """`first_only`: an error in place of an answer is raised for the first command, and None for the others."""
    pipeline = node.client.pipeline(transaction=False)
    for parts in commands:
        pipeline.execute_command(*parts)
    answers = await pipeline.execute(raise_on_error=not first_only)
    if first_only and isinstance(answers[0], Exception):
        raise answers[0]
    return [None if isinstance(answer, Exception) else answer for answer in answers]


async def _execute(node: Node, *parts: str | bytes | int) -> Any:
    return await node.client.execute_command(*parts)  # type: ignore[no-untyped-call]  # the driver's own omission
