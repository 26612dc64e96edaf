"""python -m integration.cli_nursery FD: forks a process for each command that it is told of, with all that is imported.

To start Python and to import the command line takes ten times as long as most commands. On the socket FD come packets
of a byte, each with five descriptors: a file of a `Told` as JSON, which may be longer than a packet; the command's
standard input, output and error; and a socket on which its process id and then its exit code are told, if anybody still
listens. Ends when nobody holds the other end.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

import callboard.actors.worker
import callboard.brokers.rabbitmq
import callboard.metadata.mongo
import callboard.metadata.redis  # noqa: F401  what commands import as they go
from callboard.runtime.cli import main


class Told(msgspec.Struct, frozen=True):
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str


class Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._replies: dict[int, tuple[int, socket.socket]] = {}  # and process ids, by descriptors of processes

    def serve(self) -> Told | None:
        """Returns in each child, with what it was told and nothing open that is not its own; at last without."""
        while True:
            for key, _ in self._selector.select():
                if key.fd in self._replies:
                    self._end(key.fd)
                    continue
                packet, descriptors, flags, _ = socket.recv_fds(self._control, 1, 5)
                assert not flags & socket.MSG_CTRUNC, "there are fewer descriptors left than come with a command"
                if not packet:
                    return None
                if pid := os.fork():
                    self._begin(pid, descriptors)
                    continue
                self._close()
                with os.fdopen(descriptors[0], "rb") as file:
                    told = msgspec.json.decode(file.read(), type=Told)
                for number, descriptor in enumerate(descriptors[1:4]):
                    os.dup2(descriptor, number)
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
                return told

    def _begin(self, pid: int, descriptors: Sequence[int]) -> None:
        *others, reply = descriptors
        for descriptor in others:
            os.close(descriptor)
        process = os.pidfd_open(pid)
        self._replies[process] = pid, socket.socket(fileno=reply)
        with suppress(OSError):  # as below
            self._replies[process][1].send(str(pid).encode())
        self._selector.register(process, selectors.EVENT_READ)

    def _end(self, process: int) -> None:
        self._selector.unregister(process)
        os.close(process)
        pid, reply = self._replies.pop(process)
        _, status = os.waitpid(pid, 0)
        with reply, suppress(OSError):  # who waited may have given up, which is no reason to fail all others
            reply.send(str(os.waitstatus_to_exitcode(status)).encode())

    def _close(self) -> None:
        self._selector.close()
        self._control.close()
        for process, (_, reply) in self._replies.items():
            os.close(process)
            reply.close()


if __name__ == "__main__":
    gc.freeze()  # what is here now; else each child would look through all of it, and so copy it, at its end
    told = Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
    if told is not None:
        os.chdir(told.folder)
        os.environ.clear()
        os.environ.update(told.environment)
        sys.argv = ["callboard", *told.arguments]
        main()
