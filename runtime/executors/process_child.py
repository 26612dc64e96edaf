"""The child process of the process executor: python -m callboard.runtime.executors.process_child FD

Runs one call after another in its main thread; a second thread reads the parent's frames, so that a cancellation
arrives while a task runs. Ends when the parent's end of the socket is closed, or when the parent dies.

This module imports by name: the module and the name of a function that the parent's app registered (frames.Run). Those
never come from a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import importlib.machinery
import importlib.util
import inspect
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import msgspec
from msgspec import Raw

from ..arguments import ArgumentsInvalid, Signature
from ..context import RUNNING, Context
from ..json_log import JsonFormatter
from ..json_value import encode_json
from ..results import ResultInvalid, ResultTooLarge, class_name, cut, describe_error, encode_result
from ..retry import Retry
from . import frames
from .importable import find

MAIN = "__mp_main__"  # as multiprocessing calls it, so that `if __name__ == "__main__":` guards work
MAX_CLASSES = 50
PR_SET_PDEATHSIG = 1


class Current:
    """The call in progress, as both threads see it."""

    def __init__(self, number: int, context: Context) -> None:
        self.number = number
        self.context = context
        self.interrupt: Callable[[], None] | None = None  # of an async function: cancels its asyncio task


class Child:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._orders: SimpleQueue[frames.Run | None] = SimpleQueue()
        self._current: Current | None = None
        self._lease_certain = True
        self._main_path: str | None = None
        self._main_module: str | None = None
        self._main_name: str | None = None  # once it is loaded
        self._functions: dict[tuple[str, str], tuple[Callable[..., Any], Signature]] = {}

    def serve(self) -> None:
        hello = self._receive()
        if not isinstance(hello, frames.Hello):
            return
        self._prepare(hello)
        threading.Thread(target=self._read, name="callboard-frames", daemon=True).start()
        self._send(frames.Ready())
        while (order := self._orders.get()) is not None:
            self._send(self._run(order))

    def _prepare(self, hello: frames.Hello) -> None:
        # The socket's end of file tells of a dead parent too, but only a thread that gets to run can read it: a task
        # inside a C call that holds the GIL would outlive the worker that its job has meanwhile been taken from.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != hello.parent:  # it died before the signal was asked for
            os._exit(1)
        sys.path[:] = hello.sys_path
        if hello.log_level is not None:
            handler = logging.StreamHandler()
            handler.setFormatter(JsonFormatter())
            logging.basicConfig(handlers=[handler], level=hello.log_level)
        if hello.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (hello.memory_bytes, hello.memory_bytes))
        if hello.processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (hello.processes, hello.processes))
        self._main_path, self._main_module = hello.main_path, hello.main_module

    def _read(self) -> None:
        """In a thread of its own, until the parent's end is closed."""
        while True:
            frame = self._receive()
            match frame:
                case frames.Run():
                    self._orders.put(frame)
                case frames.Stop(number=number):
                    current = self._current
                    if current is not None and current.number == number:
                        current.context.cancel()
                        if current.interrupt is not None:
                            current.interrupt()
                case frames.Lease(certain=certain):
                    self._lease_certain = certain
                case frames.Hello():
                    pass
                case None:
                    if self._current is not None:
                        os._exit(1)  # nobody is left to take a result: what runs must not outlive the worker
                    self._orders.put(None)
                    return

    def _run(self, order: frames.Run) -> frames.Outcome:
        about = order.about
        context = Context(
            job_id=about.job_id,
            queue=about.queue,
            task=about.task,
            attempt=about.attempt,
            dispatch=about.dispatch,
            fence=about.fence,
            worker=about.worker,
            meta=about.meta,
            report=self._report,
            lease_is_certain=lambda: self._lease_certain,
            traceparent=about.traceparent,
        )
        RUNNING.set(context)
        current = self._current = Current(order.number, context)
        try:
            return self._outcome(order, current)
        finally:
            self._current = None
            RUNNING.set(None)
            sys.stdout.flush()

    def _outcome(self, order: frames.Run, current: Current) -> frames.Outcome:
        try:
            function, signature = self._function(order.module, order.qualname)
            args: list[Any] = msgspec.json.decode(order.args, type=list)
            kwargs: dict[str, Any] = msgspec.json.decode(order.kwargs, type=dict)
            bound = signature.bind(args, kwargs)
        except ArgumentsInvalid as error:
            return frames.Refused(path=error.path, reason=error.reason, value=error.value)
        except BaseException as error:  # an import that fails is told like any other error of the task
            return self._raised(error)
        positional, named = bound.call_with(current.context)
        try:
            if inspect.iscoroutinefunction(function):
                value = asyncio.run(_awaited(function, positional, named, current))
            else:
                value = function(*positional, **named)
            return frames.Done(result=Raw(encode_result(value, order.result_limit)))
        except Retry as error:
            return frames.Asked(after_ms=error.after_ms, reason=error.reason)
        except ResultInvalid as error:
            return frames.NotJson(path=error.path, reason=error.reason)
        except ResultTooLarge as error:
            return frames.TooLarge(size=error.size, limit=error.limit)
        except BaseException as error:  # also SystemExit: it ends this run, the process goes on to the next
            return self._raised(error)

    def _raised(self, error: BaseException) -> frames.Raised:
        names = tuple(self._name(one) for one in type(error).__mro__[:MAX_CLASSES] if one is not object)
        info = describe_error(error)
        own = class_name(type(error))
        if own.startswith(f"{self._main_name}."):
            info = msgspec.structs.replace(info, type=names[0])
        return frames.Raised(error=info, class_names=names)

    def _name(self, one: type) -> str:
        """As the parent would call it: its main module is `__main__`, here it is not."""
        module = "__main__" if one.__module__ == self._main_name else one.__module__
        return cut(f"{module}.{one.__qualname__}", 400)

    def _function(self, module: str, qualname: str) -> tuple[Callable[..., Any], Signature]:
        key = (module, qualname)
        if key not in self._functions:
            found = find(self._module(module), qualname)
            if not callable(found):
                raise AttributeError(f"module {module!r} has no function {qualname!r} in the child process")
            self._functions[key] = (found, Signature(found, injected=Context))
        return self._functions[key]

    def _module(self, name: str) -> object:
        if name != "__main__":
            return importlib.import_module(name)
        if self._main_name is not None:
            return sys.modules[self._main_name]
        if self._main_module is not None:
            self._main_name = self._main_module
            return importlib.import_module(self._main_module)
        path = self._main_path
        if path is None:
            raise ImportError("the worker's main module is not a file")
        loader = importlib.machinery.SourceFileLoader(MAIN, path)
        spec = importlib.util.spec_from_file_location(MAIN, path, loader=loader)
        if spec is None:
            raise ImportError(f"{path} cannot be loaded")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[MAIN] = loaded
        self._main_name = MAIN
        try:
            loader.exec_module(loaded)
        except BaseException:
            self._main_name = None
            del sys.modules[MAIN]
            raise
        return loaded

    def _report(self, value: Any) -> None:
        encoded = encode_json(value, "progress")
        if len(encoded) > frames.MAX_PROGRESS_BYTES:
            raise ResultTooLarge(size=len(encoded), limit=frames.MAX_PROGRESS_BYTES)
        self._send(frames.Progress(value=Raw(encoded)))

    def _send(self, frame: frames.Frame) -> None:
        with self._sending:
            try:
                self._connection.sendall(frames.encode_frame(frame))
            except (BrokenPipeError, ConnectionResetError):
                os._exit(1)  # the parent is gone

    def _receive(self) -> frames.FromParent | None:
        """None at the end of file."""
        header = self._exactly(frames.HEADER.size)
        if header is None:
            return None
        body = self._exactly(frames.HEADER.unpack(header)[0])
        return None if body is None else frames.decode_from_parent(body)

    def _exactly(self, count: int) -> bytes | None:
        buffer = bytearray(count)
        view = memoryview(buffer)
        received = 0
        while received < count:
            try:
                got = self._connection.recv_into(view[received:])
            except ConnectionResetError:
                return None
            if not got:
                return None
            received += got
        return bytes(buffer)


async def _awaited(
    function: Callable[..., Any], positional: tuple[Any, ...], named: dict[str, Any], current: Current
) -> Any:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        if task is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in the same moment: the function is over
                loop.call_soon_threadsafe(task.cancel)

    current.interrupt = interrupt
    if current.context.cancelled:
        interrupt()
    try:
        return await function(*positional, **named)
    finally:
        current.interrupt = None


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        connection.set_inheritable(False)  # or a grandchild would keep the parent waiting for the end of file
        Child(connection).serve()


if __name__ == "__main__":
    main()
