"""pytest fixtures for tests of your app: its actors, servers, and a namespace of a test's own. In your conftest.py:

    pytest_plugins = ["callboard.runtime.testing.fixtures"]

    async def test_a_mail_is_sent(callboard_running) -> None:
        async with callboard_running(app):  # in memory
            assert await (await send_email.enqueue("a@b.c")).result(timeout=10) == "sent"

    @pytest.mark.parametrize("callboard_running", ["memory", "rabbitmq+redis", "rabbitmq+mongodb"], indirect=True)
    async def test_so_it_is_wherever_jobs_are_kept(callboard_running) -> None: ...

    callboard_running                                         `running` of an app, on the place that the test names
    callboard_rabbitmq, callboard_redis, callboard_mongodb    a URL; once a run
    callboard_namespace                                       a name; once a test

A server is the one that CALLBOARD_TEST_AMQP, CALLBOARD_TEST_REDIS or CALLBOARD_TEST_MONGO names, else a container of
RABBITMQ_IMAGE, REDIS_IMAGE or MONGO_IMAGE, made with testcontainers (which your tests have to require) and taken away
at the end. Without either a test is skipped with the reason. In memory no server is needed: broker="memory://".
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import pytest

from ..app import Callboard
from ..deployment import Deployment
from .running import running

START_SECONDS = 90.0
LOOK_AGAIN_SECONDS = 0.2

_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
_PLACES = {
    "memory": (),
    "rabbitmq+redis": ("callboard_rabbitmq", "callboard_redis"),
    "rabbitmq+mongodb": ("callboard_rabbitmq", "callboard_mongodb"),
}


@pytest.fixture
def callboard_namespace() -> str:
    """Of exchanges, queues and keys that no other test has."""
    return f"test-{uuid4().hex}"


@pytest.fixture
def callboard_running(
    request: pytest.FixtureRequest, callboard_namespace: str
) -> Callable[..., AbstractAsyncContextManager[Deployment]]:
    """`running`, which see, of an app that is moved to a place of the test's own before: memory, or what the test's
    indirect parameter names. Stop the block before the app is moved again."""
    name = getattr(request, "param", "memory")
    if name not in _PLACES:
        pytest.fail(f"callboard_running: there is no place {name!r}; there are {', '.join(_PLACES)}", pytrace=False)
    broker, store = [request.getfixturevalue(server) for server in _PLACES[name]] or ["memory://"] * 2

    def moved(app: Callboard, **options: Any) -> AbstractAsyncContextManager[Deployment]:
        app.configure(broker=broker, store=store, namespace=callboard_namespace)
        return running(app, **options)

    return moved


@pytest.fixture(scope="session")
def callboard_rabbitmq() -> Iterator[str]:
    yield from _server(
        "CALLBOARD_TEST_AMQP",
        os.environ.get("RABBITMQ_IMAGE", "rabbitmq:3.13"),
        5672,
        "amqp://guest:guest@{host}:{port}/",
        lambda host, port: _says(host, port, _AMQP_HEADER).startswith(b"\x01\x00\x00"),
    )


@pytest.fixture(scope="session")
def callboard_redis() -> Iterator[str]:
    yield from _server(
        "CALLBOARD_TEST_REDIS",
        os.environ.get("REDIS_IMAGE", "redis:7"),
        6379,
        "redis://{host}:{port}/0",
        lambda host, port: _says(host, port, b"PING\r\n").startswith(b"+PONG"),
    )


@pytest.fixture(scope="session")
def callboard_mongodb() -> Iterator[str]:
    yield from _server(
        "CALLBOARD_TEST_MONGO",
        os.environ.get("MONGO_IMAGE", "mongo:6"),
        27017,
        "mongodb://{host}:{port}/callboard?directConnection=true",
        _mongodb_answers,
    )


def _server(given: str, image: str, inside: int, url: str, answers: Callable[[str, int], bool]) -> Iterator[str]:
    if address := os.environ.get(given):
        yield address
        return
    try:
        from docker.errors import DockerException
        from requests.exceptions import RequestException
        from testcontainers.core.container import DockerContainer
    except ImportError as error:
        pytest.skip(f"{given} is not set, and testcontainers is not installed ({error})")
    try:
        container = DockerContainer(image).with_exposed_ports(inside)
        container.start()
    except (DockerException, RequestException) as error:
        pytest.skip(f"{given} is not set, and there is no container of {image}: {' '.join(str(error).split())[:240]}")
    try:
        host, port = container.get_container_host_ip(), int(container.get_exposed_port(inside))
        deadline = time.monotonic() + START_SECONDS
        while not answers(host, port):
            if time.monotonic() > deadline:
                pytest.fail(f"a container of {image} started, but nothing answered in {START_SECONDS:.0f} s")
            time.sleep(LOOK_AGAIN_SECONDS)
        yield url.format(host=host, port=port)
    finally:
        container.stop()


def _says(host: str, port: int, sent: bytes) -> bytes:
    """The first bytes of an answer; none where nobody answers."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(sent)
            return connection.recv(64)
    except OSError:
        return b""


def _mongodb_answers(host: str, port: int) -> bool:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    try:
        with MongoClient[dict[str, object]](
            host, port, directConnection=True, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000
        ) as client:
            client.admin.command("hello")
    except PyMongoError:
        return False
    return True
