"""A RabbitMQ of three nodes, each on a host of its own, and a balancer that clients connect to.

A node that sees fewer than half of the others pauses (`pause_minority`), and comes back with them. What nodes look for
in one another comes every few seconds in place of every minute.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from faults.network import Host, Network
from faults.proxy import Proxy
from servers import START_SECONDS, OwnedProcess, RabbitMQServer, ServerFailed, amqp_answers

PORT = 5672
TICK_SECONDS = 4  # nodes that are silent for so long, or a quarter longer, are down
LOOK_SECONDS = 0.5


class Node(RabbitMQServer):
    def __init__(self, folder: Path, host: Host, *, name: str, hosts: Mapping[str, str], cookie: str) -> None:
        names = {f"cluster_formation__classic_config__nodes__{n}": f"rabbit@{each}" for n, each in enumerate(hosts, 1)}
        super().__init__(
            folder,
            port=PORT,
            cluster_formation__peer_discovery_backend="classic_config",
            cluster_partition_handling="pause_minority",
            loopback_users="none",
            log__console__level="info",
            **names,
        )
        self.name = name
        self.host = host
        folder.mkdir(parents=True)
        lines = [f'{{host, {{{address.replace(".", ",")}}}, ["{each}"]}}.\n' for each, address in hosts.items()]
        (folder / "inetrc").write_text("".join([*lines, "{lookup, [file, native]}.\n"]))
        (folder / ".erlang.cookie").write_text(cookie)
        (folder / ".erlang.cookie").chmod(0o400)

    def begin(self) -> None:
        """As `start`, which would wait for the other nodes, but return at once."""
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text("".join(f"{n} = {v}\n" for n, v in self._configuration().items()))
        environment = self._environment()
        epmd, log = self.host.command(self._epmd_program), self._folder / "epmd.log"
        self._epmd = OwnedProcess(epmd, environment=environment, log=log)
        server = self.host.command(str(self._scripts / "rabbitmq-server"))
        self._process = OwnedProcess(server, environment=environment, log=self.log)

    def answers(self) -> bool:
        return amqp_answers(self.host.address, PORT)

    def ctl(self, *arguments: str) -> str:
        command = self.host.command(str(self._scripts / "rabbitmqctl"), *arguments)
        done = subprocess.run(
            command, env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=START_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ServerFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def downs(self, other: Node) -> int:
        """How often it has seen that one go."""
        return self.log.read_text("utf-8", "replace").count(f"node rabbit@{other.name} down")

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in super()._environment().items() if not name.startswith("ERL_")},
            "ERL_INETRC": str(self._folder / "inetrc"),
            "RABBITMQ_NODENAME": f"rabbit@{self.name}",
            "RABBITMQ_NODE_IP_ADDRESS": self.host.address,
            "RABBITMQ_DIST_PORT": "25672",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 1:1 +A 8 -kernel net_ticktime {TICK_SECONDS}",
        }


class Balancer(Proxy):
    """Carries each connection to the next node in turn of those that answered lately."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__(nodes[0].host.address, PORT)
        self._nodes = nodes
        self._able = list(nodes)
        self._carried: list[tuple[asyncio.StreamWriter, Node]] = []
        self._pool = ThreadPoolExecutor(len(nodes))
        self._looking: asyncio.Task[None] | None = None

    def target_of(self, client: asyncio.StreamWriter) -> tuple[str, int]:
        node = self._able.pop(0)
        self._able.append(node)
        self._carried = [(one, there) for one, there in self._carried if not one.is_closing()] + [(client, node)]
        return node.host.address, PORT

    def connections_to(self, node: Node) -> int:
        """At present."""
        return sum(there is node and not client.is_closing() for client, there in self._carried)

    async def start(self) -> None:
        await super().start()
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await super().stop()
        self._pool.shutdown()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            answers = [loop.run_in_executor(self._pool, node.answers) for node in self._nodes]
            able = {node for node, answer in zip(self._nodes, await asyncio.gather(*answers), strict=True) if answer}
            self._able = [node for node in self._able if node in able] + [n for n in able if n not in self._able]
            self._able = self._able or list(self._nodes)
            await asyncio.sleep(LOOK_SECONDS)


class RabbitCluster:
    """Raises NoNetwork and ProgramMissing before anything is started, ServerFailed."""

    def __init__(self, folder: Path) -> None:
        self._network = Network(hosts=3)
        hosts = {f"node{n}": host for n, host in enumerate(self._network.hosts, 1)}
        addresses = {name: host.address for name, host in hosts.items()}
        cookie = secrets.token_hex(16)
        self.nodes = [Node(folder / n, h, name=n, hosts=addresses, cookie=cookie) for n, h in hosts.items()]

    def others(self, node: Node) -> list[Node]:
        return [other for other in self.nodes if other is not node]

    def running(self) -> bool:
        return all(node.answers() for node in self.nodes)

    def leaders(self) -> Mapping[str, str]:
        """The node that leads each quorum queue."""
        listed = json.loads(self.nodes[0].ctl("list_queues", "name", "type", "leader", "--formatter", "json"))
        return {queue["name"]: queue["leader"] for queue in listed if queue["type"] == "quorum"}

    def __enter__(self) -> Self:
        self._network.__enter__()
        for node in self.nodes:
            node.begin()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for node in self.nodes:
                node.kill()
        finally:
            self._network.__exit__(None, None, None)
