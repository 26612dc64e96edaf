"""The fixtures that users get, on containers. On servers that are named: integration/test_user_fixtures.py."""

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


app = Callboard()


@app.task()
async def add(a: int, b: int) -> int:
    return a + b


@pytest.mark.parametrize("store", ["callboard_redis", "callboard_mongodb"])
async def test_a_job_runs(request, callboard_rabbitmq, callboard_namespace, store):
    app.configure(broker=callboard_rabbitmq, store=request.getfixturevalue(store), namespace=callboard_namespace)
    async with running(app):
        assert await (await add.enqueue(1, 2)).result(timeout=60) == 3


@pytest.mark.parametrize("callboard_running", ["memory", "rabbitmq+redis", "rabbitmq+mongodb"], indirect=True)
async def test_a_job_runs_wherever_it_is_kept(request, callboard_running):
    async with callboard_running(app):
        assert await (await add.enqueue(1, 2)).result(timeout=60) == 3
    assert app.settings.store.get_secret_value().split(":")[0] in request.node.name


async def test_a_job_runs_in_memory(callboard_running):
    async with callboard_running(app, actors=["worker"], concurrency=1):
        assert await (await add.enqueue(3, 4)).result(timeout=60) == 7
    assert app.settings.broker.get_secret_value() == "memory://"
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
    assert "6 passed" in run(tmp_path)


def test_without_an_engine_the_reason_is_told(tmp_path: Path) -> None:
    said = run(tmp_path, DOCKER_HOST="unix:///nowhere.sock")
    assert "2 passed, 4 skipped" in said
    assert "CALLBOARD_TEST_AMQP is not set, and there is no container of" in said
