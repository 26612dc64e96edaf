"""The ten-line producers in other languages, as they stand in compose/producers, each get a job run."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.runtime.testing import running
from path.place import Place

PRODUCERS = Path(__file__).parents[2] / "compose" / "producers"
END_SECONDS = 60


def program(name: str) -> str:
    """Its path; without it the test is skipped, or fails in CI."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(f"{name} is not installed. In CI every program must be there.", pytrace=False)
        pytest.skip(f"{name} is not installed")
    return found


def run(command: Sequence[str], place: Place, *, folder: Path | None = None) -> str:
    environment = {
        **os.environ,
        "CALLBOARD_BROKER": place.broker,
        "CALLBOARD_STORE": place.store,
        "CALLBOARD_NAMESPACE": place.namespace,
    }
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=END_SECONDS, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
async def place(place: Place) -> Place:
    if not place.shared:
        pytest.skip("memory:// is in one process")
    return place


async def shown_result(place: Place, command: Sequence[str], job_id: str, *, folder: Path | None = None) -> object:
    """Run the producer beside a worker and an intake; the result as `callboard jobs show` tells it."""
    app: Callboard = place.app()

    @app.task(name="greet", queue="greetings")
    async def greet(name: str) -> str:
        return f"hello {name}"

    async with running(app, actors=["worker", "intake"]):
        await asyncio.to_thread(run, command, place, folder=folder)
        async with asyncio.timeout(20):
            while await app.queue("greetings").get_job_state(job_id) != "completed":
                await asyncio.sleep(0.02)
        await place.audit(app)
    show = [sys.executable, "-m", "callboard", "jobs", "show", job_id, "--queue", "greetings", "--json"]
    return json.loads(await asyncio.to_thread(run, show, place))["result"]


async def test_bash_with_amqp_publish(place: Place) -> None:
    program("amqp-publish")
    command = [str(PRODUCERS / "submit.sh"), "greetings", "from-bash", "greet", '["bash"]']

    assert await shown_result(place, command, "from-bash") == "hello bash"


async def test_node_with_amqplib(place: Place, tmp_path: Path) -> None:
    node, npm = program("node"), program("npm")
    folder = tmp_path / "node"
    shutil.copytree(PRODUCERS / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    installed = await asyncio.to_thread(
        subprocess.run,
        [npm, "install", "--no-fund", "--no-audit", "--silent", "--prefer-offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if installed.returncode:
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(f"npm cannot install amqplib: {installed.stderr[-500:]}", pytrace=False)
        pytest.skip(f"npm cannot install amqplib: {installed.stderr[-500:]}")

    command = [node, "submit.js", "greetings", "from-node", "greet", '["node"]']
    assert await shown_result(place, command, "from-node", folder=folder) == "hello node"


@pytest.mark.parametrize("path", ["submit.sh", "node/submit.js"])
def test_a_producer_is_ten_lines_of_code(path: str) -> None:
    lines = (PRODUCERS / path).read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("#", "//"))]

    assert len(code) <= 12
