"""A heart in a process of its own, for workers whose tasks may hold the interpreter's lock for longer than the lease.

    worker ──{"boot": .., "info": ..}, each interval──> this process ──heartbeat──> store
       <──────────────────reply, and when it was sent───┘

Nothing that the worker's threads do delays it. It stops beating where the worker is no more, is stopped (SIGSTOP), or
has said nothing for `patience`: a worker whose loop stands still for that long does not come back, and others should
have its jobs. It ends when the pipe from the worker closes. Where to find the store comes through that pipe, since it
may hold a password: arguments and environments can be read by others.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from ..metadata.contract import Store, Workers
from ..metadata.errors import MetadataError
from .clock import SystemClock
from .registry import make_store

LONGEST_LINE = 16 * 1024 * 1024  # bytes, from the worker: it names all its queues
MOST_CANCELS = 50  # in one reply: a line stays far below what a pipe takes at once; the others come with the next


class Orders(Struct, frozen=True, kw_only=True):
    """The first line. Seconds; `worker` is a process id."""

    store: str
    namespace: str
    queues: tuple[str, ...]
    interval: float
    patience: float
    worker: int


class Said(Struct, frozen=True, kw_only=True):
    """Each further line: a sign of life, and what to beat with from now on."""

    boot: str
    info: bytes


class Reply(Struct, frozen=True, kw_only=True):
    """`error`: there was no beat; else as `Heartbeat`. `sent` by CLOCK_BOOTTIME, which all processes share."""

    boot: str
    sent: float
    error: str | None = None
    alive: bool = True
    cancels: tuple[tuple[str, str], ...] = ()
    paused: tuple[str, ...] = ()


_orders = msgspec.json.Decoder(Orders)
_said = msgspec.json.Decoder(Said)
decode_reply = msgspec.json.Decoder(Reply).decode


class Beats:
    def __init__(self, orders: Orders, store: Store) -> None:
        self._orders = orders
        self._store = store
        self._clock = SystemClock()
        self._said: Said | None = None
        self._heard = 0.0
        self._wake = asyncio.Event()
        self._opened = False

    def hear(self, said: Said) -> None:
        renewed = self._said is None or self._said.boot != said.boot
        self._said, self._heard = said, self._clock.elapsed()
        if renewed:
            self._wake.set()

    async def go_on(self) -> None:
        while True:
            failed = False
            if self._said is not None and self._worker_lives():
                reply = await self._beat(self._said)
                failed = reply.error is not None
                # The worker may not be reading: a pipe that is full takes no more, and the next reply says all again.
                with suppress(BlockingIOError):
                    os.write(sys.stdout.fileno(), msgspec.json.encode(reply) + b"\n")
            interval = self._orders.interval
            with suppress(TimeoutError):
                async with asyncio.timeout(min(interval, 0.5) if failed else interval):
                    await self._wake.wait()
            self._wake.clear()

    async def _beat(self, said: Said) -> Reply:
        sent = self._clock.elapsed()
        try:
            if not self._opened:
                await self._store.open()
                self._opened = True
            beat = await self._store.get(Workers).heartbeat(
                said.boot, self._orders.queues, info=said.info, now=self._clock.now()
            )
        except MetadataError as error:
            return Reply(boot=said.boot, sent=sent, error=str(error)[:500])
        cancels = tuple(beat.cancels)[:MOST_CANCELS]
        return Reply(boot=said.boot, sent=sent, alive=beat.alive, cancels=cancels, paused=tuple(beat.paused))

    def _worker_lives(self) -> bool:
        if self._clock.elapsed() - self._heard > self._orders.patience:
            return False
        try:
            # Behind the name, which may hold anything, stands one letter for the state: T is stopped, Z dead.
            state = Path(f"/proc/{self._orders.worker}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state not in "TtZX"


async def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all; the worker says when it is over
        signal.signal(number, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    os.set_blocking(sys.stdout.fileno(), False)
    orders = _orders.decode(await reader.readline())
    store = make_store(orders.store, namespace=orders.namespace)
    beats = Beats(orders, store)
    beating = loop.create_task(beats.go_on())
    hearing = loop.create_task(_hear(reader, beats))
    try:
        await asyncio.wait([beating, hearing], return_when=asyncio.FIRST_COMPLETED)
        if beating.done():
            beating.result()
    finally:
        beating.cancel()
        hearing.cancel()
        await asyncio.gather(beating, hearing, return_exceptions=True)
        await store.close()


async def _hear(reader: asyncio.StreamReader, beats: Beats) -> None:
    while line := await reader.readline():
        beats.hear(_said.decode(line))


if __name__ == "__main__":
    asyncio.run(main())
