"""The private servers of the fault tests do what their names say, and what they leave behind is nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers import (
    ProgramMissing,
    RabbitMQServer,
    RedisServer,
    ServerFailed,
    amqp_answers,
    free_port,
    redis_answers,
)

TESTS = Path(__file__).parents[1]


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[RedisServer]:
    try:
        server = RedisServer(tmp_path / "redis", appendfsync="always")
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="module")
def private_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    try:
        server = RabbitMQServer(tmp_path_factory.mktemp("rabbitmq"))
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


def client_of(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))


def command_of(pid: int) -> str:
    """The name of the running program, empty when there is no such process."""
    record = Path(f"/proc/{pid}/comm")
    return record.read_text() if record.exists() else ""


def test_a_killed_redis_comes_back_on_its_port_with_what_it_had_acknowledged(private_redis: RedisServer) -> None:
    with client_of(private_redis) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        client.set("kept", "yes")
    first = private_redis.pid

    private_redis.kill()

    assert not private_redis.running
    assert not redis_answers("127.0.0.1", private_redis.port)
    private_redis.start()
    assert private_redis.pid != first
    with client_of(private_redis) as client:
        assert client.get("kept") == b"yes"


def test_a_frozen_redis_answers_nothing_until_it_goes_on(private_redis: RedisServer) -> None:
    private_redis.pause()
    with client_of(private_redis) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert private_redis.running
        private_redis.cont()
        assert client.ping()


def test_a_redis_that_cannot_start_says_why(private_redis: RedisServer, tmp_path: Path) -> None:
    refused = RedisServer(tmp_path / "refused", appendonly="perhaps")

    with pytest.raises(ServerFailed, match="argument must be 'yes' or 'no'"):
        refused.start()


def test_a_second_redis_on_the_same_port_is_not_mistaken_for_the_first(
    private_redis: RedisServer, tmp_path: Path
) -> None:
    second = RedisServer(tmp_path / "second", port=private_redis.port)

    with pytest.raises(ServerFailed, match="is in use"):
        second.start()


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from servers import RedisServer\n"
        "server = RedisServer(Path(sys.argv[1])).start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    server = os.pidfd_open(int(owner.stdout.readline()))

    owner.send_signal(signal.SIGKILL)

    owner.wait(10)
    owner.stdout.close()
    owner.stdin.close()
    ended = asyncio.run(_ended(server))
    os.close(server)
    assert ended


async def _ended(pidfd: int) -> bool:
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, readable.set)
    return await asyncio.wait_for(readable.wait(), 10)


async def test_a_killed_rabbitmq_keeps_its_confirmed_messages(private_rabbitmq: RabbitMQServer) -> None:
    connection = await aio_pika.connect(private_rabbitmq.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue("kept", durable=True)
        message = aio_pika.Message(b"yes", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key="kept")
        first = private_rabbitmq.pid
        assert command_of(first).startswith("beam")

        await asyncio.to_thread(private_rabbitmq.kill)

    assert command_of(first) == ""
    assert not amqp_answers("127.0.0.1", private_rabbitmq.port)
    await asyncio.to_thread(private_rabbitmq.start)
    connection = await aio_pika.connect(private_rabbitmq.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue("kept")
        kept = await queue.get(timeout=5, no_ack=True)
    assert kept is not None
    assert kept.body == b"yes"


async def test_a_frozen_rabbitmq_answers_nothing_until_it_goes_on(private_rabbitmq: RabbitMQServer) -> None:
    await asyncio.to_thread(private_rabbitmq.pause)
    assert not await asyncio.to_thread(amqp_answers, "127.0.0.1", private_rabbitmq.port)
    private_rabbitmq.cont()
    assert await asyncio.to_thread(amqp_answers, "127.0.0.1", private_rabbitmq.port)


def test_rabbitmqctl_reaches_the_private_node_and_no_other(private_rabbitmq: RabbitMQServer) -> None:
    assert f"callboard-{private_rabbitmq.port}@localhost" in private_rabbitmq.ctl("cluster_status")
    with pytest.raises(ServerFailed, match="no_such_command"):
        private_rabbitmq.ctl("no_such_command")


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < first_outgoing for _ in range(50))
