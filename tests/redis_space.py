"""A namespace of a test's own on a Redis, and a look at its keys with plain commands, past the store.

The URL of a cluster has to name all of its masters; `nodes` are the URLs to look by where that is not by the store's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast
from uuid import uuid4

from redis.asyncio import Redis

from callboard.metadata.redis import RedisStore
from callboard.metadata.redis.address import Mode, parse


class RedisSpace:
    def __init__(self, url: str, *, nodes: Sequence[str] = ()) -> None:
        self.url = url
        address = parse(url)
        self._nodes = list(nodes) or [url]
        if not nodes and address.mode is Mode.CLUSTER:
            self._nodes = [f"redis://{host}:{port}/0" for host, port in address.hosts]
        self.namespace = f"test-{uuid4().hex}"

    def store(self, options: str = "") -> RedisStore:
        """A closed store on this namespace; `options` are URL options: "timeout=1"."""
        return RedisStore.from_url(f"{self.url}?{options}" if options else self.url, namespace=self.namespace)

    async def command(self, *parts: Any) -> Any:
        client = Redis.from_url(self.url, protocol=2, driver_info=None)
        try:
            return await client.execute_command(*parts)
        finally:
            await client.aclose()

    async def keys(self) -> list[bytes]:
        return sorted([key for url in self._nodes for key in await self._keys_at(url)])

    async def _keys_at(self, url: str) -> list[bytes]:
        client = Redis.from_url(url, protocol=2, driver_info=None)
        try:
            return [key async for key in client.scan_iter(match=f"{self.namespace}:*", count=10_000)]
        finally:
            await client.aclose()

    async def queue_keys(self) -> list[bytes]:
        """All but the bookkeeping that is common to all queues."""
        return [key for key in await self.keys() if b"{" in key]

    async def delete(self) -> None:
        for url in self._nodes:
            client = Redis.from_url(url, protocol=2, driver_info=None)
            try:
                async with client.pipeline(transaction=False) as pipeline:
                    async for key in client.scan_iter(match=f"{self.namespace}:*", count=10_000):
                        pipeline.unlink(key)  # one by one: a cluster's node takes no command on keys of several slots
                    await pipeline.execute()
            finally:
                await client.aclose()

    async def calls(self) -> dict[str, int]:
        """How often each command was run by the server, inside scripts as well."""
        info = cast("dict[str, dict[str, int]]", await self.command("INFO", "commandstats"))
        return {name: stats["calls"] for name, stats in info.items()}


def more_calls(after: dict[str, int], before: dict[str, int], *, without: Iterable[str] = ()) -> dict[str, int]:
    """The commands run between two looks, with those of the looks themselves left out."""
    looks = {"cmdstat_info", "cmdstat_hello", "cmdstat_client|setinfo", "cmdstat_client", "cmdstat_select", *without}
    grown = {name: count - before.get(name, 0) for name, count in after.items() if name not in looks}
    return {name: count for name, count in grown.items() if count}
