"""The way to the server: script calls by one pipelined connection (`pipe.py`), plain commands by the driver.

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
from .pipe import Lost, Pipe, encode
from .scripts import Script, read_scripts

T = TypeVar("T")
Call = tuple[str, Any]  # queue, arguments

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
        self._client: Redis | None = None
        self._pipe: Pipe | None = None

    async def open(self) -> None:
        """Nothing is sent yet."""
        if self._client is None:
            self._client = Redis(connection_pool=_pool(self.address), single_connection_client=False)
            self._pipe = Pipe(self.address, host=self.address.host, port=self.address.port)

    async def close(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            await pipe.close()
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
        return (await self.run_each(script, ((queue, arguments),)))[0]

    async def run_each(self, script: str, calls: Sequence[Call]) -> list[Any]:
        """Run one script on several queues: one round trip, each queue atomic for itself.

        By the script's SHA1; a server that has forgotten it (restart, SCRIPT FLUSH) is sent the text, and keeps it.
        Several calls are repeated whole, also where some of them were run: that is harmless.
        """
        if not calls:
            return []
        pipe, known = self._open_pipe(), self._calls[script]
        operands = [_operands(self.keys.of_queue(queue).encode(), _packed(arguments)) for queue, arguments in calls]
        try:
            try:
                return await pipe.ask([known.by_sha + one for one in operands])
            except (NoScriptError, Lost):
                return await pipe.ask([known.by_text + one for one in operands])
        except (RedisError, OSError) as error:
            raise translated(error, self.address.name) from error

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

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except (RedisError, OSError) as error:
            raise translated(error, self.address.name) from error
        except RuntimeError as error:
            if not is_closed_transport(error):
                raise
            raise StoreUnavailable(self.address.name, "the connection was lost before a command was sent") from error

    def _open_pipe(self) -> Pipe:
        if self._pipe is None:
            raise StoreUnavailable(self.address.name, "it is not open")
        return self._pipe

    def _open_client(self) -> Redis:
        if self._client is None:
            raise StoreUnavailable(self.address.name, "it is not open")
        return self._client


def _operands(key: bytes, packed: bytes) -> bytes:
    return b"$1\r\n1\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(packed), packed)


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
