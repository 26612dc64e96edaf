"""Hosts on a network of their own, that can be cut off from one another: network namespaces of this machine.

    with Network(hosts=3) as network:
        first, *others = network.hosts
        first.command("redis-server", ...)   # what runs it there, as arguments
        first.drop(others)                   # packets from and to these are dropped; this machine still reaches it
        first.unplug()                       # from everybody
        first.heal()

    host 1 ─┐
    host 2 ─┼─ switch ─── this machine, as .254
    host 3 ─┘

The switch is in a namespace, too: what this machine filters when it bridges (Docker has it drop) must not matter. The
addresses are of those that are set aside for such tests (198.18.0.0/15); there is no way out. It takes root:
`NoNetwork` elsewhere. All of it goes with the block, also where the tests are killed: a keeper sees to that.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

SECONDS = 30.0
THIS_MACHINE = 254


class NoNetwork(Exception):
    """No network can be made here; the message says why, and what to do."""


class Host:
    """`name`: of its namespace. `port`: of the switch, to which it is connected."""

    def __init__(self, name: str, address: str, *, switch: str, port: str) -> None:
        self.name = name
        self.address = address
        self._switch = switch
        self._port = port

    def command(self, *arguments: str) -> Sequence[str]:
        return "ip", "netns", "exec", self.name, *arguments

    def drop(self, others: Iterable[Host]) -> None:
        for other in others:
            _do(*self.command("iptables", "-A", "INPUT", "-s", other.address, "-j", "DROP"))
            _do(*self.command("iptables", "-A", "OUTPUT", "-d", other.address, "-j", "DROP"))

    def unplug(self) -> None:
        _do("ip", "-n", self._switch, "link", "set", self._port, "down")

    def heal(self) -> None:
        _do(*self.command("iptables", "-F"))
        _do("ip", "-n", self._switch, "link", "set", self._port, "up")


class Network:
    def __init__(self, *, hosts: int) -> None:
        token = secrets.token_hex(3)
        self._net = f"198.18.{secrets.randbelow(256)}"
        self._switch = f"callboard-{token}"
        self._uplink = f"cb{token}"
        self.hosts = [
            Host(f"{self._switch}-{n}", f"{self._net}.{n}", switch=self._switch, port=f"port{n}")
            for n in range(1, hosts + 1)
        ]
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        missing = [program for program in ("ip", "iptables") if shutil.which(program) is None]
        if missing:
            raise NoNetwork(f"{' and '.join(missing)} not found: install iproute2 and iptables")
        if os.geteuid() != 0:
            raise NoNetwork("a network namespace takes root: run this test as root")
        namespaces = [self._switch, *(host.name for host in self.hosts)]
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; for name in "$@"; do ip netns del "$name"; done', "keeper", *namespaces],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._make(namespaces)
        except BaseException:
            self._remove()
            raise
        return self

    def _make(self, namespaces: Sequence[str]) -> None:
        for name in namespaces:
            _do("ip", "netns", "add", name)
            _do("ip", "-n", name, "link", "set", "lo", "up")
        _do("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _do("ip", "-n", self._switch, "link", "set", "bridge", "up")
        for host in self.hosts:
            self._connect(host._port, "eth0", "netns", host.name)
            _do("ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            _do("ip", "-n", host.name, "link", "set", "eth0", "up")
        self._connect("uplink", self._uplink, "netns", str(os.getpid()))
        _do("ip", "address", "add", f"{self._net}.{THIS_MACHINE}/24", "dev", self._uplink)
        _do("ip", "link", "set", self._uplink, "up")

    def _connect(self, port: str, *far_end: str) -> None:
        _do("ip", "-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", *far_end)
        _do("ip", "-n", self._switch, "link", "set", port, "master", "bridge", "up")

    def _remove(self) -> None:
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()
            self._keeper.wait(SECONDS)
            self._keeper = None

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._remove()


def _do(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise NoNetwork(f"{' '.join(command)}: {done.stderr.strip()}")
