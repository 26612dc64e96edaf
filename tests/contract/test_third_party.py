"""A store and a broker that are not of this house: found by their entry points, and judged by the same suites.

`tests/example_plugins` is a distribution of its own. It is installed, as far as Python's import system can tell, into a
folder of the test's: its modules, and the metadata that an installer makes of its pyproject.toml.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

DISTRIBUTION = Path(__file__).parents[1] / "example_plugins"
LEAST_PASSED = 400  # store; the brokers come on top
APP = """
import asyncio, sys
from callboard import Callboard
from callboard.runtime.testing import running

app = Callboard(broker="loop://", store=sys.argv[1], namespace="app")

@app.task(name="double")
async def double(n: int) -> int:
    return 2 * n

async def main() -> None:
    if sys.argv[2] == "run":
        async with running(app):
            job = await double.options(job_id="first").enqueue(21)
            print(await job.result(30))
    else:
        async with app:
            job = await app.queue("default").get_job("first")
            print(job.state, job.result)

asyncio.run(main())
"""
LEAN = """
from callboard.metadata.contract import Delays
from callboard_disk import DiskStore

class LeanStore(DiskStore):
    scheme = "lean"

    @classmethod
    def from_url(cls, url, *, namespace):
        return super().from_url(url.replace("lean://", "disk://"), namespace=namespace)

    @property
    def capabilities(self):
        return super().capabilities - {Delays}
"""
SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
addopts = --import-mode=importlib --strict-config -p no:cacheprovider
filterwarnings = error
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in which the distribution is installed."""
    site = tmp_path / "site"
    site.mkdir()
    described: dict[str, Any] = tomllib.loads((DISTRIBUTION / "pyproject.toml").read_text())
    project = described["project"]
    for module in described["tool"]["setuptools"]["py-modules"]:
        shutil.copy(DISTRIBUTION / f"{module}.py", site)
    metadata = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    return site


def _python(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(site), **environment},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )


@pytest.mark.slow
def test_the_suites_judge_a_store_and_a_broker_that_an_entry_point_names(
    site: Path, tmp_path: Path, amqp_url: str
) -> None:
    shutil.copy(DISTRIBUTION / "test_conformance.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    ran = _python(
        site,
        # The real server: only what takes its connection away.
        *("-m", "pytest", "-q", "--tb=short", "-k", "not TestServer or connection", "test_conformance.py"),
        DISK_STORE_FOLDER=str(tmp_path / "data"),
        LOOP_BROKER_SERVER=amqp_url,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) >= LEAST_PASSED


def test_an_app_uses_a_store_and_a_broker_that_an_entry_point_names(site: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    url = f"disk://{tmp_path / 'data'}"
    ran = _python(site, "app.py", url, "run")
    assert (ran.returncode, ran.stdout) == (0, "42\n"), ran.stderr
    # Another process finds the job in the file.
    ran = _python(site, "app.py", url, "look")
    assert (ran.returncode, ran.stdout) == (0, "completed 42\n"), ran.stderr


def test_a_scheme_that_nobody_has_installed_is_refused_with_those_that_are(site: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    ran = _python(site, "app.py", "disc:///data", "run")
    assert ran.returncode != 0
    assert re.search(r"no store is installed for disc:///data; known are: disk://, memory://, mongodb", ran.stderr)


def test_an_actor_is_refused_at_start_where_the_store_lacks_what_it_needs_and_the_wiring_shows_it(
    site: Path, tmp_path: Path
) -> None:
    (site / "callboard_lean.py").write_text(LEAN)
    (entry_points,) = site.glob("*/entry_points.txt")
    lines = entry_points.read_text()
    entry_points.write_text(lines.replace("[callboard.stores]", "[callboard.stores]\nlean = callboard_lean:LeanStore"))
    options = ("--store", f"lean://{tmp_path / 'data'}", "--broker", "loop://")

    refused = _python(site, "-m", "callboard", "run", "delayed-scanner", *options)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "callboard: actor 'delayed-scanner' needs the capability Delays, which the store 'lean' does not offer"
    )

    wiring = _python(site, "-m", "callboard", "wiring")
    offered = {line.split()[0]: line.split(maxsplit=1)[1] for line in wiring.stdout.splitlines() if "mongodb" in line}
    assert offered["Jobs"] == "disk, lean, memory, mongodb, redis"
    assert offered["Delays"] == "disk, memory, mongodb, redis"
