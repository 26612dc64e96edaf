"""A stack of compose/, under a project name and on a port of its own, taken down with all it had at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

COMPOSE = Path(__file__).parents[2] / "compose"
ACTORS = ("worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention", "intake")
WAIT_SECONDS = 240.0


class StackFailed(Exception):
    """A command of the stack failed, or what was waited for did not come; says what the containers said last."""


def compose_program() -> list[str]:
    """That of this machine: docker-compose, which may be of either generation, else the plugin."""
    if found := shutil.which("docker-compose"):
        return [found]
    return ["docker", "compose"]


class Stack:
    """`services` are those to start, and what they depend on; without them all. `scale`: how many of a service.
    `program`: a Compose, in place of the machine's own."""

    def __init__(
        self,
        *overrides: str,
        services: Sequence[str] = (),
        scale: Mapping[str, int] | None = None,
        program: Sequence[str] = (),
    ) -> None:
        self.project = f"callboard-{uuid4().hex[:8]}"
        self._arguments = [f"--scale={service}={count}" for service, count in (scale or {}).items()] + list(services)
        self._program = list(program) or compose_program()
        self._producer_url = ""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._files = [
            argument
            for name in ("compose.yaml", *(f"compose.{override}.yaml" for override in overrides))
            for argument in ("-f", str(COMPOSE / name))
        ]

    def __enter__(self) -> Self:
        try:
            self.compose("up", "--detach", *self._arguments, timeout=600)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.compose("down", "--volumes", "--timeout", "5", timeout=300)

    def compose(self, *arguments: str, timeout: float = 120.0, check: bool = True) -> str:
        """Its standard output."""
        environment = {**os.environ, "CALLBOARD_AMQP_PORT": str(self.port), "DOCKER_BUILDKIT": "0"}
        command = [*self._program, "-p", self.project, *self._files, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise StackFailed(f"{' '.join(arguments)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout

    def inspect(self, service: str) -> list[dict[str, Any]]:
        """Of each of its containers, running or not."""
        ids = self._containers(service)
        return list(json.loads(docker("inspect", *ids))) if ids else []

    def _containers(self, service: str) -> list[str]:
        labels = (f"project={self.project}", f"service={service}")
        filters = [argument for label in labels for argument in ("--filter", f"label=com.docker.compose.{label}")]
        return docker("ps", "--all", "--quiet", *filters).split()

    def health(self, service: str) -> list[str]:
        """Of each of its containers: healthy, starting, unhealthy, or the state of one that does not run."""
        found = []
        for container in self.inspect(service):
            state = container["State"]
            # One about to be restarted counts as running for the engine, with the health that it had.
            healthy_or_not = state["Status"] == "running" and "Health" in state
            found.append(state["Health"]["Status"] if healthy_or_not else state["Status"])
        return found

    def wait_healthy(self, services: Sequence[str]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            states = {service: self.health(service) for service in services}
            if all(found and set(found) == {"healthy"} for found in states.values()):
                return
            if time.monotonic() > deadline:
                raise StackFailed(f"not healthy: {states}\n{self.compose('logs', '--tail=30', *services)[-6000:]}")
            time.sleep(1)

    def stop(self, services: Sequence[str]) -> dict[str, list[int]]:
        """All containers in order; the exit codes of those of `services`."""
        self.compose("stop", timeout=180)
        return {name: [one["State"]["ExitCode"] for one in self.inspect(name)] for name in services}

    def kill(self, service: str) -> None:
        """The first process of its container dies of SIGKILL, which the engine has noticed when this returns; the
        restart policy is what brings it back."""
        killed = {container["State"]["Pid"] for container in self.inspect(service)} - {0}  # of one that does not run
        if not killed:
            raise StackFailed(
                f"{service}: none of its containers runs, so there is nothing to kill; wait_healthy first"
            )
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + WAIT_SECONDS
        while killed & {container["State"]["Pid"] for container in self.inspect(service)}:
            if time.monotonic() > deadline:
                raise StackFailed(f"{service}: its container still shows a process that was killed: {killed}")
            time.sleep(0.05)

    def callboard(self, *arguments: str, service: str = "worker", check: bool = True) -> str:
        return self.compose("exec", "-T", service, "callboard", *arguments, check=check)

    def python(self, code: str, *arguments: str, service: str = "worker") -> str:
        """In the first of its containers, and past Compose, which takes as long to start as most of what is asked."""
        (container, *_) = self._containers(service)
        return docker("exec", container, "python", "-c", code, *arguments, timeout=600)

    def producer_url(self) -> str:
        """That of the user for foreign producers, as seen from outside."""
        if not self._producer_url:
            image = os.environ.get("CALLBOARD_IMAGE", "callboard-sample:local")
            volume = f"{self.project}_secrets-producer:/secrets:ro"
            kept = docker("run", "--rm", "-v", volume, "--entrypoint", "cat", image, "/secrets/callboard_broker")
            self._producer_url = kept.replace("@broker:5672", f"@127.0.0.1:{self.port}")
        return self._producer_url


def docker(*arguments: str, timeout: float = 60.0) -> str:
    """Its standard output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise StackFailed(f"docker {' '.join(arguments)}: {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout
