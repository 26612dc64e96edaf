"""The parent's end of one child process: its start, its frames, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

import msgspec

from . import frames
from .contract import WorkerProcessDied

STDERR = 2
STARTUP_SECONDS = 60.0  # importing the package; generous, since a machine that boots may be slow
LAST_WORDS_SECONDS = 1.0  # what a dead child's socket still holds is read within this


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a child may use. `memory_bytes`: of address space; beyond it the task sees a MemoryError. `processes`: that
    this user may have, all together; Linux does not apply it to root."""

    memory_bytes: int | None = None
    processes: int | None = None


class ChildProcess:
    """Use `start`. After its end, however that came about, `gone` is set: the process is reaped, its group killed, its
    socket closed."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.pid = process.pid
        self.calls = 0
        self.gone = asyncio.Event()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._limit = frames.MAX_FRAME_BYTES
        self._answer: asyncio.Future[frames.Ready | frames.Outcome] | None = None
        self._progress: Callable[[bytes], None] | None = None
        self._death: WorkerProcessDied | None = None
        self._ended = asyncio.Event()  # but not reaped yet
        threading.Thread(target=self._watch, name=f"callboard-child-{self.pid}", daemon=True).start()
        self._serving = self._loop.create_task(self._serve(), name=f"callboard:child {self.pid}")

    @classmethod
    async def start(cls, hello: frames.Hello, environment: Mapping[str, str]) -> ChildProcess:
        """Raises WorkerProcessDied if it ends, or takes a minute, before it is ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            # From the loop's own thread: the kernel takes the death of the starting *thread* for the parent's death.
            # It blocks the loop for a millisecond or two (vfork), once a child.
            process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "callboard.runtime.executors.process_child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=dict(environment),
            )
        try:
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        child = cls(process, reader, writer)
        try:
            async with asyncio.timeout(STARTUP_SECONDS):
                await child._ask(hello)
        except BaseException as error:
            child.kill()
            await child.gone.wait()
            if isinstance(error, TimeoutError):
                when = f"by the worker's hand: it was not ready after {STARTUP_SECONDS:g} s"
                raise WorkerProcessDied(when=when) from None
            raise
        return child

    @property
    def alive(self) -> bool:
        return self._death is None and not self.gone.is_set()

    async def call(self, run: frames.Run, progress: Callable[[bytes], None]) -> frames.Outcome:
        """One call at a time. Raises WorkerProcessDied. If it is cancelled the call goes on: `settle` or `kill`."""
        self.calls += 1
        self._limit = run.result_limit + frames.OVERHEAD_BYTES
        self._progress = progress
        answer = await self._ask(run)
        if isinstance(answer, frames.Ready):
            self.kill()
            raise WorkerProcessDied(when="by the worker's hand: it said `ready` twice")
        return answer

    async def settle(self, seconds: float) -> bool:
        """Whether the call that was left behind ended within the time, so that the child can be used again."""
        if self._answer is None:
            return self.alive
        await asyncio.wait({self._answer}, timeout=seconds)
        if not self._answer.done():
            return False
        self._answer.exception()  # seen; it is nobody's any more
        self._answer = None
        return self.alive

    def tell(self, frame: frames.Stop | frames.Lease) -> None:
        if self.alive:
            self._writer.write(frames.encode_frame(frame))

    def kill(self) -> None:
        """With everything it started: it leads a session and process group of its own."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Close the socket: an idle child finishes by itself."""
        self._writer.close()

    async def _ask(self, frame: frames.Hello | frames.Run) -> frames.Ready | frames.Outcome:
        if self._death is not None:
            raise self._death
        answer = self._answer = self._loop.create_future()
        self._writer.write(frames.encode_frame(frame))
        with contextlib.suppress(ConnectionError):  # it died; the answer says how
            await self._writer.drain()
        # Shielded: a cancelled caller leaves the future to `settle`, which waits for the answer still to come.
        value: frames.Ready | frames.Outcome = await asyncio.shield(answer)
        self._answer = None
        return value

    async def _serve(self) -> None:
        """Reads frames until the child's end, and then tells who waits."""
        when = "before it was ready"
        try:
            while True:
                frame = await self._receive()
                match frame:
                    case frames.Progress(value=value):
                        if self._progress is not None:
                            self._progress(bytes(value))
                    case _ if self._answer is not None and not self._answer.done():
                        self._answer.set_result(frame)
                        when = "under its task"
                    case _:
                        when = f"by the worker's hand: it sent {type(frame).__name__} unasked"
                        break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # its end of the socket is closed
        except (msgspec.DecodeError, _TooLong) as error:
            when = f"by the worker's hand: {error}"
        except asyncio.CancelledError:  # the loop is ending
            self.kill()
            raise
        self._writer.transport.abort()
        # A child that closed its socket but lives on, or daemonised itself, is of no use any more. A dismissed one
        # gets the time that its exit handlers need.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._ended.wait()
        self.kill()
        await self._ended.wait()
        code = self._process.wait()
        self._death = WorkerProcessDied(
            exit_code=code if code >= 0 else None, signal_number=-code if code < 0 else None, when=when
        )
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._death)
            self._answer.exception()  # if nobody waits for it any more, asyncio need not say so
        self.gone.set()

    async def _receive(self) -> frames.FromChild:
        size = frames.HEADER.unpack(await self._reader.readexactly(frames.HEADER.size))[0]
        if size > self._limit:
            raise _TooLong(f"it sent a frame of {size} bytes, the limit is {self._limit}")
        return frames.decode_from_child(await self._reader.readexactly(size))

    def _watch(self) -> None:
        """In a thread: wait for the end without reaping, since its process group has its name only until then."""
        with contextlib.suppress(ChildProcessError):  # somebody else reaped it; `wait` then says 0
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process that held it is ending
            self._loop.call_soon_threadsafe(self._exited)

    def _exited(self) -> None:
        self.kill()  # what it started and left behind
        self._ended.set()
        # Its last words are in our socket's buffer, followed by the end of file; unless a process that left the group
        # still holds the other end.
        self._loop.call_later(LAST_WORDS_SECONDS, self._writer.transport.abort)


class _TooLong(Exception):
    pass
