"""Which server a test gets: an address that was given, else a container, else a local program; or the reasons why none.

    CALLBOARD_TEST_REDIS, CALLBOARD_TEST_AMQP, CALLBOARD_TEST_MONGO, CALLBOARD_TEST_MONGO_REPLICA
                                                  addresses of servers to use (they are neither emptied nor stopped)
    REDIS_IMAGE, RABBITMQ_IMAGE, MONGO_IMAGE      images for a Docker engine, when one answers
    CALLBOARD_TEST_SERVERS=local | docker         only this way; without it, both are tried, containers first

The order is the same for every server; what differs is one `Service` value each.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

from servers import (
    REPLICA_SET,
    MongoServer,
    ProgramMissing,
    RabbitMQServer,
    RedisServer,
    ServerFailed,
    amqp_answers,
    make_replica_set,
    mongo_answers,
    redis_answers,
)

CONTAINER_SECONDS = 90.0
STARTS = 3  # attempts to start a local server


class LocalServer(Protocol):
    @property
    def url(self) -> str: ...

    def start(self) -> Self: ...

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What has to be known of a kind of server to find or start one. `url` has the fields {host} and {port}.

    `command`: what the container runs with, where that is not the image's own; `prepare`: what makes it ready, given
    its host and port.
    """

    name: str
    given: str
    image_variable: str
    image: str
    port: int
    url: str
    answers: Callable[[str, int], bool]
    local: Callable[[Path], LocalServer]
    command: str = ""
    prepare: Callable[[str, int], None] = lambda host, port: None


REDIS = Service(
    name="Redis",
    given="CALLBOARD_TEST_REDIS",
    image_variable="REDIS_IMAGE",
    image="redis:7",
    port=6379,
    url="redis://{host}:{port}/0",
    answers=redis_answers,
    local=RedisServer,
)
RABBITMQ = Service(
    name="RabbitMQ",
    given="CALLBOARD_TEST_AMQP",
    image_variable="RABBITMQ_IMAGE",
    image="rabbitmq:3.12-management",
    port=5672,
    url="amqp://guest:guest@{host}:{port}/",
    answers=amqp_answers,
    local=RabbitMQServer,
)


MONGO = Service(
    name="MongoDB",
    given="CALLBOARD_TEST_MONGO",
    image_variable="MONGO_IMAGE",
    image="mongo:6",
    port=27017,
    url="mongodb://{host}:{port}/callboard?directConnection=true",
    answers=mongo_answers,
    local=MongoServer,
)
MONGO_REPLICA = Service(
    name="MongoDB replica set",
    given="CALLBOARD_TEST_MONGO_REPLICA",
    image_variable="MONGO_IMAGE",
    image="mongo:6",
    port=27017,
    url="mongodb://{host}:{port}/callboard?directConnection=true",
    answers=mongo_answers,
    local=lambda folder: MongoServer(folder, replica_set=True),
    command=f"--replSet {REPLICA_SET}",
    prepare=lambda host, port: make_replica_set(host, port, inside=27017),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """A server that answers at `url`; `origin` says in a few words where it comes from; `close` gives it back."""

    url: str
    origin: str
    close: Callable[[], None]
    passed_over: tuple[str, ...] = ()


class NoServer(Exception):
    """No way to a server of this kind: one reason for each way that was tried."""

    def __init__(self, service: str, reasons: list[str]) -> None:
        super().__init__(f"no {service}: " + "; ".join(reasons))
        self.service = service
        self.reasons = reasons


def provide(service: Service, folder: Path, environment: Mapping[str, str] = os.environ) -> Provided:
    """Find or start a server and wait until it answers.

    A given address that does not answer raises `ServerFailed`: who names a server means that one. Otherwise each way
    that fails leaves its reason in `passed_over`, or in `NoServer` when no way is left.
    """
    if given := environment.get(service.given):
        return _given(service, given)
    ways = {"docker": _container, "local": _local}
    only = environment.get("CALLBOARD_TEST_SERVERS")
    if only and only not in ways:
        raise ServerFailed(f"CALLBOARD_TEST_SERVERS={only}: must be one of {', '.join(ways)}")
    reasons: list[str] = []
    for name, way in ways.items():
        if only in (None, "", name):
            found = way(service, folder, environment)
            if isinstance(found, Provided):
                return Provided(url=found.url, origin=found.origin, close=found.close, passed_over=tuple(reasons))
            reasons.append(found)
    raise NoServer(service.name, reasons)


def _given(service: Service, url: str) -> Provided:
    address = urlsplit(url)
    if not service.answers(address.hostname or "", address.port or service.port):
        raise ServerFailed(f"{service.given} names {_without_password(url)}, where no {service.name} answers")
    return Provided(url=url, origin=f"given: {_without_password(url)}", close=lambda: None)


def _container(service: Service, folder: Path, environment: Mapping[str, str]) -> Provided | str:
    # Imported here: slow to import, and needed only where a Docker engine is used.
    import docker
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    # docker's client leaves its socket open where nobody listens: asked for first, it would fail a later test.
    engine = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    if engine.scheme == "unix" and not _listens(engine.path):
        return f"no Docker engine answers (nobody listens at {engine.path})"
    try:
        with contextlib.closing(docker.from_env(timeout=10)) as client:
            client.api.ping()
    except (DockerException, RequestException) as error:
        return f"no Docker engine answers ({type(error).__name__})"
    from testcontainers.core.container import DockerContainer

    image = environment.get(service.image_variable) or service.image
    try:
        container = DockerContainer(image).with_exposed_ports(service.port)
        if service.command:
            container = container.with_command(service.command)
        container.start()  # also fetches the image, and testcontainers' own reaper unless that is disabled
    except (DockerException, RequestException) as error:
        return f"no container of {image} ({' '.join(str(error).split())[:240]})"
    host, port = container.get_container_host_ip(), int(container.get_exposed_port(service.port))
    deadline = time.monotonic() + CONTAINER_SECONDS
    while not service.answers(host, port):
        if time.monotonic() > deadline:
            container.stop()
            return f"image {image} started, but nothing answered in {CONTAINER_SECONDS:.0f} s"
        time.sleep(0.1)
    service.prepare(host, port)
    return Provided(
        url=service.url.format(host=host, port=port), origin=f"container of {image}, port {port}", close=container.stop
    )


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _local(service: Service, folder: Path, environment: Mapping[str, str]) -> Provided | str:
    failed = ""
    for attempt in range(STARTS):
        try:
            server = service.local(folder / str(attempt))
        except ProgramMissing as error:
            return str(error)
        try:
            server.start()
        except ServerFailed as error:  # a port that was free may be somebody's by now; the next attempt has others
            server.kill()
            failed = str(error)
        else:
            return Provided(url=server.url, origin=f"local process, {_without_password(server.url)}", close=server.kill)
    return failed


def _without_password(url: str) -> str:
    address = urlsplit(url)
    host = f"{address.hostname}:{address.port}" if address.port else f"{address.hostname}"
    return f"{address.scheme}://{host}{address.path}"
