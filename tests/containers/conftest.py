"""The image is built once; without a Docker engine and docker-compose these tests are skipped, or fail in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from containers.stack import ACTORS, Stack


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
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    Stack().compose("build", "secrets", timeout=900)
    return os.environ.get("CALLBOARD_IMAGE", "callboard-sample:local")


@pytest.fixture(scope="module")
def stack(image: str) -> Iterator[Stack]:
    with Stack() as stack:
        stack.wait_healthy(["rabbitmq", "store", *ACTORS])
        yield stack
