"""Redis servers that belong together, as private processes: a cluster, and a master with replicas and sentinels.

with RedisCluster(folder) as cluster:           # three masters, no replica
    cluster.nodes[0].kill()

with RedisSentinel(folder) as watched:          # a master, a replica, and sentinels that promote it
    watched.master.kill()

With a `certificate` (see certificates.py) they talk to one another by TLS, and take it from clients; their other ports
stay open for the tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from servers import LOOPBACK, START_SECONDS, RedisServer, ServerFailed, free_port

SLOTS = 16_384
SERVICE = "shop"


def command(server: RedisServer, *parts: str | int) -> Any:
    """One command on a connection of its own."""
    with Redis(host=LOOPBACK, port=server.port, protocol=2, socket_timeout=START_SECONDS, driver_info=None) as client:
        return client.execute_command(*parts)


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if true():
                return
        except (RedisError, OSError):
            pass
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what}: not within {START_SECONDS:.0f} s")
        time.sleep(0.02)


def _tls(certificate: Path | None, authority: Path | None) -> dict[str, str]:
    """The directives of one server. Its own port for TLS is chosen here."""
    if certificate is None or authority is None:
        return {}
    return {
        "tls-port": str(free_port()),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate.with_suffix(".key")),
        "tls-ca-cert-file": str(authority),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }


def _port(server: RedisServer) -> int:
    """What others are told."""
    return int(server.options.get("tls-port", server.port))


class RedisCluster:
    """`masters` servers that share the slots, and `replicas` of them, from the first on; all on loopback.

    `nodes`: the masters first. `options` as for RedisServer. Returns from `start` once every node says that the cluster
    is up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        masters: int = 3,
        replicas: int = 0,
        certificate: Path | None = None,
        authority: Path | None = None,
        **options: str,
    ) -> None:
        self._masters = masters
        self._authority = authority
        self._stack = ExitStack()
        self.nodes = [
            RedisServer(
                folder / str(number),
                cluster_enabled="yes",
                cluster_port=str(free_port()),
                cluster_node_timeout="1000",
                repl_diskless_sync_delay="0",
                **({"tls-cluster": "yes"} if certificate else {}),
                **_tls(certificate, authority),
                **options,
            )
            for number in range(masters + replicas)
        ]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{_port(node)}" for node in self.nodes[: self._masters])
        return (
            f"rediss+cluster://{hosts}?ssl_ca_certs={self._authority}"
            if self._authority
            else f"redis+cluster://{hosts}"
        )

    def start(self) -> Self:
        for node in self.nodes:
            self._stack.enter_context(node)
        masters, others = self.nodes[: self._masters], self.nodes[self._masters :]
        for number, node in enumerate(masters):
            first, last = number * SLOTS // self._masters, (number + 1) * SLOTS // self._masters - 1
            command(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
            command(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            command(node, "CLUSTER", "MEET", LOOPBACK, _port(self.nodes[0]), int(self.nodes[0].options["cluster-port"]))
        self._wait_known(len(self.nodes))
        for number, node in enumerate(others):
            command(node, "CLUSTER", "REPLICATE", self.id_of(masters[number % self._masters]))
        for node in self.nodes:
            wait_until(
                lambda node=node: b"cluster_state:ok" in command(node, "CLUSTER", "INFO"), "a cluster that is up"
            )
        for node in others:
            wait_until(
                lambda node=node: command(node, "INFO", "replication")["master_link_status"] == "up",
                "replicas that follow",
            )
        return self

    def id_of(self, node: RedisServer) -> str:
        return str(command(node, "CLUSTER", "MYID").decode())

    def owner_of(self, slot: int) -> RedisServer:
        """As the first node that is up sees it."""
        asked = next(node for node in self.nodes if node.running)
        for first, last, master, *_ in command(asked, "CLUSTER", "SLOTS"):
            if int(first) <= slot <= int(last):
                return next(node for node in self.nodes if int(master[1]) in (node.port, _port(node)))
        raise ServerFailed(f"no node serves slot {slot}")

    def _wait_known(self, count: int) -> None:
        for node in self.nodes:
            wait_until(
                lambda node=node: f"cluster_known_nodes:{count}\r".encode() in command(node, "CLUSTER", "INFO"),
                "nodes that know one another",
            )

    def kill(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class RedisSentinel:
    """A master with one replica, and `sentinels` that promote it, by a majority of them, when the master is gone for a
    second."""

    def __init__(
        self,
        folder: Path,
        *,
        sentinels: int = 3,
        certificate: Path | None = None,
        authority: Path | None = None,
        **options: str,
    ) -> None:
        self._stack = ExitStack()
        self._quorum = sentinels // 2 + 1
        self._authority = authority
        self.master = RedisServer(
            folder / "master", repl_diskless_sync_delay="0", **_tls(certificate, authority), **options
        )
        self.replica = RedisServer(
            folder / "replica",
            replicaof=f"{LOOPBACK} {_port(self.master)}",
            repl_diskless_sync_delay="0",
            **_tls(certificate, authority),
            **options,
        )
        self.sentinels = [
            Sentinel(folder / f"sentinel-{number}", **_tls(certificate, authority)) for number in range(sentinels)
        ]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{_port(sentinel)}" for sentinel in self.sentinels)
        url = f"redis+sentinel://{hosts}/{SERVICE}/0"
        return f"{url.replace('redis', 'rediss', 1)}?ssl_ca_certs={self._authority}" if self._authority else url

    def start(self) -> Self:
        for server in (self.master, self.replica):
            self._stack.enter_context(server)
        wait_until(
            lambda: command(self.replica, "INFO", "replication")["master_link_status"] == "up", "a replica that follows"
        )
        for sentinel in self.sentinels:
            self._stack.enter_context(sentinel)
            command(sentinel, "SENTINEL", "MONITOR", SERVICE, LOOPBACK, _port(self.master), self._quorum)
            command(sentinel, "SENTINEL", "SET", SERVICE, "down-after-milliseconds", 1000, "failover-timeout", 10_000)
        wait_until(lambda: all(self._is_watching(sentinel) for sentinel in self.sentinels), "sentinels that watch")
        return self

    def _is_watching(self, sentinel: Sentinel) -> bool:
        row = command(sentinel, "SENTINEL", "MASTER", SERVICE)
        state = dict(zip(row[::2], row[1::2], strict=True))
        return (int(state[b"num-slaves"]), int(state[b"num-other-sentinels"])) == (1, len(self.sentinels) - 1)

    def promoted(self) -> RedisServer:
        """The server that is the master now, in the eyes of the first sentinel."""
        _, port = command(self.sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self.master if int(port) == _port(self.master) else self.replica

    def kill(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class Sentinel(RedisServer):
    """One that watches nothing yet. Keeps what it learns in a file that it writes itself."""

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder)
        self.options = options

    def arguments(self) -> Sequence[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "sentinel.conf"
        if not configuration.exists():
            lines = [f"bind {LOOPBACK}", f"port {self.port}", f'dir "{self._folder}"']
            lines += [f"{name} {value}" for name, value in self.options.items()]
            configuration.write_text("".join(f"{line}\n" for line in lines))
        return [self._program, str(configuration), "--sentinel"]
