"""The worker's side of a heart in a process of its own (heart_process.py)."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence

import msgspec

from ..metadata.contract import Heartbeat
from .errors import HeartStopped
from .heart_process import Orders, Said, decode_reply
from .settings import Settings

log = logging.getLogger("callboard.heart")

END_SECONDS = 5.0
MOST_UNSENT = 64 * 1024  # bytes; a sibling that does not read hears the newest when it does


class Sibling:
    """`beaten` and `failed` as of `Heart`; `patience`: seconds after which a loop that stands still is given up.
    Started and stopped in the worker's loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        queues: Sequence[str],
        info: Callable[[], bytes],
        beaten: Callable[[str, Heartbeat, float], None],
        failed: Callable[[BaseException], None],
        patience: float,
    ) -> None:
        self._settings = settings
        self._queues = tuple(queues)
        self._info = info
        self._beaten = beaten
        self._failed = failed
        self._patience = patience
        self._interval = settings.lease_seconds / 4
        self._boot = ""
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    def start(self, boot: str) -> None:
        self._boot = boot
        self._living = asyncio.get_running_loop().create_task(self._live_or_tell())

    def renew(self, boot: str) -> None:
        self._boot = boot
        self._wake.set()

    async def stop(self) -> None:
        """No beat after this."""
        self._stop.set()
        self._wake.set()
        if self._living is not None:
            await self._living

    async def _live_or_tell(self) -> None:
        try:
            await self._live()
        except Exception as error:  # nobody waits for this task before the worker ends
            if self._stop.is_set():
                log.warning("the heart failed while it was being stopped: %s: %s", type(error).__name__, error)
            else:
                self._failed(error)

    async def _live(self) -> None:
        """Until `stop`. Raises HeartStopped, OSError where no process can be started, and whatever else goes wrong."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"{__package__}.heart_process", stdin=PIPE, stdout=PIPE
        )
        speaking = asyncio.create_task(self._speak(process))
        listening = asyncio.create_task(self._listen(process))
        await asyncio.wait([speaking, listening], return_when=asyncio.FIRST_COMPLETED)
        stopped = self._stop.is_set()
        if not stopped:
            listening.cancel()
        speaking.cancel()
        assert process.stdin is not None
        process.stdin.close()
        await _end(process)
        ended = await asyncio.gather(speaking, listening, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        if not stopped:
            raise HeartStopped(process.returncode)

    async def _speak(self, process: Process) -> None:
        settings, pipe = self._settings, process.stdin
        assert pipe is not None
        orders = Orders(
            store=settings.store.get_secret_value(),
            namespace=settings.namespace,
            queues=self._queues,
            interval=self._interval,
            patience=self._patience,
            worker=os.getpid(),
        )
        pipe.write(msgspec.json.encode(orders) + b"\n")
        while not self._stop.is_set():
            self._wake.clear()
            if pipe.transport.get_write_buffer_size() < MOST_UNSENT:
                pipe.write(msgspec.json.encode(Said(boot=self._boot, info=self._info())) + b"\n")
            try:
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        failing = False
        while line := await process.stdout.readline():
            reply = decode_reply(line)
            if self._stop.is_set():
                continue
            if reply.error is not None:
                if not failing:
                    log.warning("no heartbeat: %s", reply.error)
                failing = True
                continue
            if failing:
                log.warning("heartbeats go on")
            failing = False
            self._beaten(reply.boot, Heartbeat(reply.alive, reply.cancels, reply.paused), reply.sent)


async def _end(process: Process) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
