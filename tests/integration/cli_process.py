"""Real `callboard` processes: run to their end, or started, listened to and signalled."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

import msgspec

from callboard.brokers.rabbitmq import RabbitMQBroker
from callboard.brokers.topology import Names
from integration.cli_nursery import Told
from redis_space import RedisSpace

HERE = Path(__file__).parent
APP = "integration.cli_tasks:app"
END_SECONDS = 60.0


class Ended:
    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def environment(**settings: str) -> dict[str, str]:
    """This process's, without Callboard's settings but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CALLBOARD_", "FORCE_COLOR"))}
    return {**kept, "COLUMNS": "80", **{f"CALLBOARD_{name.upper()}": value for name, value in settings.items()}}


class CliNursery:
    """Commands in processes that are forked from one that has imported everything: see cli_nursery.py."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "integration.cli_nursery", str(theirs.fileno())],
                cwd=HERE.parent,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def run(self, told: Told, stdin: str) -> Ended:
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with (
            reply,
            TemporaryFile() as command,
            TemporaryFile() as given,
            TemporaryFile() as output,
            TemporaryFile() as errors,
        ):
            for file, content in ((command, msgspec.json.encode(told)), (given, stdin.encode())):
                file.write(content)
                file.seek(0)
            with theirs:
                descriptors = [one.fileno() for one in (command, given, output, errors, theirs)]
                socket.send_fds(self._control, [b"1"], descriptors)
            reply.settimeout(END_SECONDS)
            pid = int(reply.recv(32))
            try:
                code = int(reply.recv(32))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            output.seek(0)
            errors.seek(0)
            return Ended(code, output.read().decode(), errors.read().decode())

    def close(self) -> None:
        self._control.close()
        self._process.wait(END_SECONDS)


@cache
def nursery() -> CliNursery:
    """One for all tests of this process."""
    made = CliNursery()
    atexit.register(made.close)
    return made


class Cli:
    """Commands with the same settings."""

    def __init__(self, **settings: str) -> None:
        self.environment = environment(**settings)

    def run(self, *arguments: str, stdin: str = "", variables: Mapping[str, str] | None = None) -> Ended:
        """Run a command to its end: in a process that was forked, or, with `variables`, which Python or a library may
        look at while it starts, in one that begins from nothing."""
        if not variables:
            return nursery().run(Told(arguments, self.environment, str(HERE.parent)), stdin)
        done = subprocess.run(
            [sys.executable, "-m", "callboard", *arguments],
            cwd=HERE.parent,
            env={**self.environment, **variables},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=END_SECONDS,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str) -> Ended:
        ended = self.run(*arguments)
        assert ended.code == 0, ended
        return ended

    def start(self, *arguments: str) -> Running:
        return Running(arguments, self.environment)


class Running:
    """A command that runs until it is told to end; killed where a test ends without."""

    def __init__(self, arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "callboard", *arguments],
            cwd=HERE.parent,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Until so many lines on stderr hold the text."""
        with self._more:
            reached = self._more.wait_for(lambda: self._count(text) >= times or self._closed, END_SECONDS)
        assert reached, f"no {text!r} within {END_SECONDS} s in:\n{self.stderr}"
        assert self._count(text) >= times, f"ended without {text!r}:\n{self.stderr}"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Its exit code, once it has ended."""
        code = self._process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _count(self, text: str) -> int:
        return sum(text in line for line in self._lines)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._more:
                self._lines.append(line)
                self._more.notify_all()
        with self._more:
            self._closed = True
            self._more.notify_all()


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + END_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"no file {path} within {END_SECONDS} s"
        time.sleep(0.02)


class Place:
    """A namespace of a test's own on real servers."""

    def __init__(self, *, redis_url: str, amqp_url: str) -> None:
        self._space = RedisSpace(redis_url)
        self._amqp_url = amqp_url
        self.namespace = self._space.namespace
        self.cli = Cli(broker=amqp_url, store=redis_url, namespace=self.namespace, lease_seconds="2")

    async def keys(self) -> list[bytes]:
        return await self._space.keys()

    def delete(self, *queues: str) -> None:
        asyncio.run(self._delete(queues))

    async def _delete(self, queues: tuple[str, ...]) -> None:
        await self._space.delete()
        names = Names(self.namespace)
        broker = RabbitMQBroker.from_url(self._amqp_url, name="clean-up")
        await broker.open()
        try:
            for queue in (names.dead, names.intake, *(names.job_queue(queue) for queue in queues)):
                await broker.delete(queue)
        finally:
            await broker.close()
        await delete_exchanges(self._amqp_url, names)


async def delete_exchanges(amqp_url: str, names: Names) -> None:
    import aio_pika  # only tests delete exchanges: the broker has no use for it

    connection = await aio_pika.connect(amqp_url)
    try:
        channel = await connection.channel()
        for exchange in names.exchanges().exchanges:
            await channel.exchange_delete(exchange.name)
    finally:
        await connection.close()
