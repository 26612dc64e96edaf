"""The way to the server: script calls, pipelines of them, and plain commands.

Every call may be repeated (that is the contract of the operations), so what was lost with a connection is sent again
once, over a new one. A call never waits longer than the address's timeout for an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import NoScriptError, RedisError

from ..errors import StoreUnavailable
from .address import Address
from .failures import is_closed_transport, translated
from .keys import Keys
from .scripts import Script, read_scripts

T = TypeVar("T")
Call = tuple[str, Any]  # queue, arguments

_packed = msgspec.msgpack.Encoder().encode


class RedisConnection:
    def __init__(self, address: Address, keys: Keys) -> None:
        self.address = address
        self.keys = keys
        self._scripts = read_scripts()
        self._client: Redis | None = None

    async def open(self) -> None:
        """Make the pool. Nothing is sent yet."""
        if self._client is None:
            self._client = Redis(connection_pool=_pool(self.address), single_connection_client=False)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose(close_connection_pool=True)

    async def load_scripts(self) -> None:
        """One round trip."""
        client = self._open_client()

        async def load() -> None:
            pipeline = client.pipeline(transaction=False)
            for script in self._scripts.values():
                pipeline.execute_command("SCRIPT LOAD", script.text)
            await pipeline.execute()

        await self._guarded(load)

    async def run(self, script: str, queue: str, arguments: Any) -> Any:
        """Run one script on one queue: one round trip."""
        client, key, packed = self._open_client(), self.keys.of_queue(queue), _packed(arguments)

        async def call(command: str, body: str) -> Any:
            return await _execute(client, command, body, 1, key, packed)

        return await self._known_or_sent(self._scripts[script], call)

    async def run_each(self, script: str, calls: Sequence[Call]) -> list[Any]:
        """Run one script on several queues: one round trip, each queue atomic for itself."""
        if not calls:
            return []
        if len(calls) == 1:
            return [await self.run(script, *calls[0])]
        client = self._open_client()
        packed = [(self.keys.of_queue(queue), _packed(arguments)) for queue, arguments in calls]

        async def call(command: str, body: str) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for key, arguments in packed:
                pipeline.execute_command(command, body, 1, key, arguments)
            return await pipeline.execute()

        return await self._known_or_sent(self._scripts[script], call)

    async def command(self, *parts: str | bytes | int) -> Any:
        client = self._open_client()

        async def call() -> Any:
            return await _execute(client, *parts)

        return await self._guarded(call)

    async def commands(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """Several commands in one round trip, without a transaction."""
        client = self._open_client()

        async def call() -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for parts in commands:
                pipeline.execute_command(*parts)
            return await pipeline.execute()

        return await self._guarded(call)

    async def _known_or_sent(self, script: Script, call: Callable[[str, str], Awaitable[T]]) -> T:
        """By the script's SHA1; a server that has forgotten it (restart, SCRIPT FLUSH) is sent the text, and keeps it.

        A pipeline is repeated whole, also where some of its calls were run: that is harmless.
        """

        async def call_twice() -> T:
            try:
                return await call("EVALSHA", script.sha)
            except NoScriptError:
                return await call("EVAL", script.text)

        return await self._guarded(call_twice)

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except (RedisError, OSError) as error:
            raise translated(error, self.address.name) from error
        except RuntimeError as error:
            if not is_closed_transport(error):
                raise
            raise StoreUnavailable(self.address.name, "the connection was lost before a command was sent") from error

    def _open_client(self) -> Redis:
        if self._client is None:
            raise StoreUnavailable(self.address.name, "it is not open")
        return self._client


async def _execute(client: Redis, *parts: str | bytes | int) -> Any:
    return await client.execute_command(*parts)  # type: ignore[no-untyped-call]  # the driver's own omission


def _pool(address: Address) -> BlockingConnectionPool:
    options: dict[str, Any] = {}
    if address.tls:
        options = {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": address.ssl_ca_certs,
            "ssl_certfile": address.ssl_certfile,
            "ssl_keyfile": address.ssl_keyfile,
        }
    return BlockingConnectionPool(
        max_connections=address.max_connections,
        timeout=address.timeout,
        connection_class=SSLConnection if address.tls else Connection,
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.username,
        password=address.password,
        socket_timeout=address.timeout,
        socket_connect_timeout=address.timeout,
        protocol=2,
        # Not on timeouts: a server that is slow is not helped by a second copy of the call.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionLost,)),
        **options,
    )
