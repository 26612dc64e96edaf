"""Declarations and questions about queues, one after the other on a channel of their own.

A refused declaration closes the channel, and so does one that is cancelled or not answered: the next one opens a new
channel. It is on the consuming connection, because an exclusive queue can be consumed only by the connection that
declared it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from aiormq.abc import AbstractChannel

from ..contract import Depth
from ..topology import Binding, Exchange, Queue, Topology
from .link import ANSWER_SECONDS, Link, NotThere, translated

Answer = TypeVar("Answer")


class Declarer:
    """For one connection: what was declared on it is known."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: AbstractChannel | None = None
        self._lock = asyncio.Lock()
        self._declared: set[Topology] = set()

    @property
    def up(self) -> bool:
        return self._link.up

    async def declare(self, topology: Topology, *, again: bool = False) -> None:
        if topology in self._declared and not again:
            return
        self._declared.discard(topology)
        for exchange in topology.exchanges:
            await self._ask(partial(_declare_exchange, exchange))
        for queue in topology.queues:
            await self._ask(partial(_declare_queue, queue))
        for binding in topology.bindings:
            await self._ask(partial(_bind, binding))
        self._declared.add(topology)

    async def depth(self, queue: str) -> Depth | None:
        try:
            answer = await self._ask(lambda channel: channel.queue_declare(queue, passive=True))
        except NotThere:
            return None
        return Depth(ready=answer.message_count or 0, consumers=answer.consumer_count or 0)

    async def purge(self, queue: str) -> None:
        try:
            await self._ask(lambda channel: channel.queue_purge(queue))
        except NotThere:
            return

    async def delete(self, queue: str) -> None:
        self._declared = {
            topology for topology in self._declared if all(declared.name != queue for declared in topology.queues)
        }
        await self._ask(lambda channel: channel.queue_delete(queue))

    async def _ask(self, question: Callable[[AbstractChannel], Awaitable[Answer]]) -> Answer:
        async with self._lock:
            channel = self._channel
            if channel is None or channel.is_closed:
                channel = self._channel = await self._link.channel()
            try:
                with translated(self._link.broker):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        return await question(channel)
            except BaseException:
                # It is closed or about to be.
                self._channel = None
                raise


async def _declare_exchange(exchange: Exchange, channel: AbstractChannel) -> None:
    await channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)


async def _declare_queue(queue: Queue, channel: AbstractChannel) -> None:
    await channel.queue_declare(
        queue.name, durable=not queue.exclusive, exclusive=queue.exclusive, arguments=dict(queue.arguments)
    )


async def _bind(binding: Binding, channel: AbstractChannel) -> None:
    await channel.queue_bind(binding.queue, binding.exchange, routing_key=binding.routing_key)
