"""The fixtures that users get, on containers, and on servers that are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TEST = """
import pytest
from callboard import Callboard
from callboard.runtime.testing import running

pytest_plugins = ["callboard.runtime.testing.fixtures"]


@pytest.mark.parametrize("store", ["callboard_redis", "callboard_mongodb"])
async def test_a_job_runs(request, callboard_rabbitmq, callboard_namespace, store):
    url = request.getfixturevalue(store)
    app = Callboard(broker=callboard_rabbitmq, store=url, namespace=callboard_namespace)

    @app.task()
    async def add(a: int, b: int) -> int:
        return a + b

    async with running(app):
        assert await (await add.enqueue(1, 2)).result(timeout=60) == 3
"""


def run(folder: Path, **environment: str) -> str:
    (folder / "test_user.py").write_text(TEST)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-o",
        "asyncio_mode=auto",
        "-p",
        "no:cacheprovider",
        "test_user.py",
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")}
    done = subprocess.run(
        command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, timeout=400, check=False
    )
    return done.stdout + done.stderr


def test_the_fixtures_start_containers(image: str, tmp_path: Path) -> None:
    assert "2 passed" in run(tmp_path)


def test_without_an_engine_the_reason_is_told(tmp_path: Path) -> None:
    said = run(tmp_path, DOCKER_HOST="unix:///nowhere.sock")
    assert "2 skipped" in said
    assert "CALLBOARD_TEST_AMQP is not set, and there is no container of" in said


def test_named_servers_are_used(tmp_path: Path, amqp_url: str, redis_url: str, mongo_url: str) -> None:
    given = {"CALLBOARD_TEST_AMQP": amqp_url, "CALLBOARD_TEST_REDIS": redis_url, "CALLBOARD_TEST_MONGO": mongo_url}
    assert "2 passed" in run(tmp_path, DOCKER_HOST="unix:///nowhere.sock", **given)
