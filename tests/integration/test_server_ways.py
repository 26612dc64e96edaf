"""Integration tests pass on given servers, on containers and on local programs, and the summary says which.

Those that are run so stand for all: which way is taken is one setting of a whole run. `.ci/run` runs this file again
where it has started a Docker engine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SAMPLES = (
    "tests/integration/test_store_epochs.py",
    "tests/integration/test_rabbitmq_connection.py::test_the_servers_version_is_known",
    "tests/integration/test_rabbitmq_connection.py::test_a_missing_virtual_host_is_said_at_once",
)


def summary(**settings: str) -> str:
    """What a run of the samples prints that has these settings and no others of its kind."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CALLBOARD_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-q", "-p", "no:cacheprovider", *SAMPLES]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**kept, **settings}, capture_output=True, text=True, timeout=230, check=False
    )
    return done.stdout + done.stderr


def all_passed(said: str) -> bool:
    return re.search(r"^\d+ passed in", said, re.MULTILINE) is not None


def test_on_given_servers(redis_url: str, amqp_url: str, mongo_url: str) -> None:
    said = summary(CALLBOARD_TEST_REDIS=redis_url, CALLBOARD_TEST_AMQP=amqp_url, CALLBOARD_TEST_MONGO=mongo_url)

    assert all_passed(said), said
    for line in (f"Redis: given: {redis_url}", "RabbitMQ: given: amqp://", "MongoDB: given: mongodb://"):
        assert f"\n{line}" in said


def test_on_local_programs() -> None:
    said = summary(CALLBOARD_TEST_SERVERS="local")

    assert all_passed(said), said
    for server in ("Redis: local process, redis", "RabbitMQ: local process, amqp", "MongoDB: local process, mongodb"):
        assert f"\n{server}://127.0.0.1:" in said


def test_on_containers() -> None:
    said = summary(CALLBOARD_TEST_SERVERS="docker", CI="")
    if "no Docker engine answers" in said:
        pytest.skip("no Docker engine answers here: tried on given servers and local programs only")
    if "REDIS_IMAGE" not in os.environ and re.search("no container of redis.*images/create", said):
        pytest.skip("the Docker engine here can fetch no image, and REDIS_IMAGE names none: tried without containers")

    assert all_passed(said), said
    for server in ("Redis", "RabbitMQ", "MongoDB"):
        assert re.search(rf"^{server}: container of \S+, port \d+$", said, re.MULTILINE), said
