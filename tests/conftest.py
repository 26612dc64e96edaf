"""Fixtures for every test: the addresses of real servers, found or started once a run (see provision.py).

A missing server fails the tests that need it where CI is set, and skips them, with the reasons, elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from lacking import do_without
from mongo_space import drop_free
from provision import MONGO, MONGO_REPLICA, RABBITMQ, REDIS, NoServer, Service, provide

TESTS = Path(__file__).parent
MEMORY_DISK, MEMORY_DISK_BYTES = Path("/dev/shm"), 4 * 1024**3
KINDS = {
    "containers",
    "unit",
    "path",
    "contract",
    "integration",
    "faults",
    "simulation",
    "interop",
    "model",
    "house",
    "bench",
}
collect_ignore = ["example_plugins"]  # a distribution of its own, run as such by contract/test_third_party.py
# Where several processes share the tests, those of these files begin first, the longest of all first: else whoever got
# a long one last would be waited for.
LONGEST = (
    "contract/test_mongo.py",
    "contract/test_redis_cluster.py",
    "simulation/test_protocol.py",
    "model/test_protocol.py",
    "contract/test_redis.py",
    "contract/test_mongo_machine.py",
    "contract/test_redis_machine.py",
    "contract/test_third_party.py",
    "contract/test_stores.py",
    "integration/test_rabbitmq_connection.py",
    "integration/test_executors.py",
    "integration/test_scheduler_idle.py",
    "integration/test_server_ways.py",
    "integration/test_twenty_thousand.py",
    "integration/test_producer_permissions.py",
    "interop/test_producers.py",
    "house/test_servers.py",
    "containers/test_compose_kills.py",
    "containers/test_compose.py",
    "faults/test_storm.py",
    "faults/test_t1_schedulers_killed.py",
    "faults/test_t3_backlog.py",
    "faults/test_data_wiped.py",
    "faults/test_b1_broker_killed.py",
    "faults/test_p4_every_step.py",
    "faults/test_b2_long_handlers.py",
    "faults/test_b2_connections_cut.py",
)
_used = pytest.StashKey[dict[str, str]]()
_passed = pytest.StashKey[Counter[str]]()
_left = pytest.StashKey[Counter[str]]()  # to the long tests

# What a test ran on, by its class of the conformance suite or its place of the path suite.
PLACES = {
    "contract/test_stores.py::TestMemoryStore": "memory",
    "contract/test_redis.py::TestRedisStore": "Redis",
    "contract/test_redis_cluster.py::TestRedisClusterStore": "Redis Cluster of three nodes",
    "contract/test_mongo.py::TestMongoStandalone": "MongoDB standalone, PyMongo",
    "contract/test_mongo.py::TestMongoReplicaSet": "MongoDB replica set, PyMongo",
    "contract/test_mongo.py::TestMotorStandalone": "MongoDB standalone, Motor",
    "contract/test_mongo.py::TestMotorReplicaSet": "MongoDB replica set, Motor",
    "contract/test_brokers.py::TestMemoryBroker": "memory, broker",
    "contract/test_brokers.py::TestRabbitMQBroker": "RabbitMQ, broker",
    "contract/test_brokers.py::TestRabbitMQBrokerOnPlainFrames": "RabbitMQ by plain frames, broker",
}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_used] = {}
    config.stash[_passed] = Counter()
    config.stash[_left] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0]
        if kind not in KINDS:
            raise pytest.UsageError(f"{item.path}: tests live in one of tests/{{{','.join(sorted(KINDS))}}}/")
        item.add_marker(kind)
    if hasattr(config, "workerinput"):
        first = {TESTS / name: place for place, name in enumerate(LONGEST)}
        if missing := [str(path) for path in first if not path.exists()]:
            raise pytest.UsageError(f"LONGEST in {__file__} names what is not there: {', '.join(missing)}")
        items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for service in (REDIS, RABBITMQ, MONGO, MONGO_REPLICA):
        if service.given in os.environ:
            lines.append(f"{service.name}: given by {service.given}")
        else:
            image = os.environ.get(service.image_variable) or service.image
            lines.append(f"{service.name}: {service.given} is not set; a container of {image}, else a local process")
    return lines


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the tests tells the one that reports which servers it had, and what passed."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["servers"] = session.config.stash[_used]
        passed, left = session.config.stash[_passed], session.config.stash[_left]
        output["passed"], output["left"] = dict(passed), dict(left)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    for name, origin in output.get("servers", {}).items():
        node.config.stash[_used][f"{name}, {node.gateway.id}"] = origin
    node.config.stash[_passed].update(output.get("passed", {}))
    left = node.config.stash[_left]
    left |= Counter(output.get("left", {}))  # the same in each process


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("soak") and (suite := _suite_of(item)):
            item.config.stash[_left][suite] += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed and (suite := _suite_of(item)):
        item.config.stash[_passed][suite] += 1
    return report


def _suite_of(item: pytest.Item) -> str | None:
    part, _, _ = item.nodeid.rpartition("::")
    if known := PLACES.get(part.removeprefix("tests/")):
        return f"conformance on {known}"
    if item.get_closest_marker("path") and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        place = item.callspec.params.get("place")
        if isinstance(place, str):
            return f"path of a job on {place}"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, origin in config.stash[_used].items():
        terminalreporter.write_line(f"{name}: {origin}")
    for suite, passed in sorted(config.stash[_passed].items()):
        left = config.stash[_left][suite]
        more = f" (and {left} by tests/soak)" if left else ""
        terminalreporter.write_line(f"{passed:5} passed: {suite}{more}")


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis shared by the whole run: keep to a namespace of your own and never flush it."""
    with _data_folder(tmp_path_factory, "redis") as folder:
        yield from _serve(REDIS, request.config, folder)


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A RabbitMQ shared by the whole run: keep to a namespace of your own."""
    with _data_folder(tmp_path_factory, "rabbitmq") as folder:
        yield from _serve(RABBITMQ, request.config, folder)


@pytest.fixture(scope="session")
def mongo_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A standalone MongoDB shared by the whole run: keep to a namespace of your own."""
    with _data_folder(tmp_path_factory, "mongo") as folder:
        for url in _serve(MONGO, request.config, folder):
            yield url
            drop_free(url)


@pytest.fixture(scope="session")
def mongo_replica_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A replica set of one, shared by the whole run: keep to a namespace of your own."""
    with _data_folder(tmp_path_factory, "mongo-replica") as folder:
        for url in _serve(MONGO_REPLICA, request.config, folder):
            yield url
            drop_free(url)


@contextmanager
def _data_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """In memory where there is room: a server that waits for a disk with every write makes a run twice as long. What
    becomes of data on a disk is tested on servers of those tests' own."""
    if MEMORY_DISK.is_dir() and os.access(MEMORY_DISK, os.W_OK) and disk_usage(MEMORY_DISK).free > MEMORY_DISK_BYTES:
        with TemporaryDirectory(prefix=f"callboard-{name}-", dir=MEMORY_DISK, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp(name)


def _serve(service: Service, config: pytest.Config, folder: Path) -> Iterator[str]:
    try:
        provided = provide(service, folder)
    except NoServer as missing:
        config.stash[_used][service.name] = str(missing)
        do_without(f"{missing}.", in_ci="In CI every server must be there.")
    passed_over = "".join(f" (not used: {reason})" for reason in provided.passed_over)
    config.stash[_used][service.name] = provided.origin + passed_over
    try:
        yield provided.url
    finally:
        provided.close()
