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
from typing import NoReturn

import pytest

from callboard import Callboard
from callboard.runtime.testing import running
from lacking import do_without
from path.place import Place

PRODUCERS = Path(__file__).parents[2] / "compose" / "producers"
END_SECONDS = 60


def program(name: str) -> str:
    """Its path; without it the test is skipped, or fails in CI."""
    found = shutil.which(name)
    if found is None:
        missing(name)
    return found


def missing(name: str) -> NoReturn:
    do_without(f"{name} is not installed.", in_ci="In CI everything must be there.")


def environment_of(place: Place) -> dict[str, str]:
    return {
        **os.environ,
        "CALLBOARD_BROKER": place.broker,
        "CALLBOARD_STORE": place.store,
        "CALLBOARD_NAMESPACE": place.namespace,
    }


def run(command: Sequence[str], place: Place, *, folder: Path | None = None) -> str:
    done = subprocess.run(
        command, env=environment_of(place), cwd=folder, capture_output=True, text=True, timeout=END_SECONDS, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


JARS = [f"/usr/share/java/{name}.jar" for name in ("amqp-client", "slf4j-api", "slf4j-nop")]
GO = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOTOOLCHAIN": "local"}
# What each is run with, once it is prepared in a folder of its own; the arguments of a producer follow.
COMMANDS = {
    "bash": [str(PRODUCERS / "submit.sh")],
    "node": ["node", "submit.js"],
    "java": ["java", "-cp", ":".join(JARS), "Submit.java"],
    "php": ["php", "submit.php"],
    "ruby": ["ruby", "submit.rb"],
    "perl": ["perl", "submit.pl"],
    "c": ["./submit"],
    "go": ["./submit"],
}
NEEDED = {"bash": ["amqp-publish"], "node": ["node", "npm"], "c": ["cc"]}
LIBRARIES = {
    "c": "/usr/include/amqp_tcp_socket.h",
    "java": JARS[0],
    "php": "/usr/share/php/PhpAmqpLib/autoload.php",
    "ruby": "/usr/share/doc/ruby-bunny",
    "perl": "/usr/share/perl5/AnyEvent/RabbitMQ.pm",
    "go": "/usr/share/gocode/src/github.com/rabbitmq/amqp091-go",
}
PREPARED = {
    "node": ["npm", "install", "--no-fund", "--no-audit", "--silent", "--prefer-offline"],
    "c": ["cc", "-Wall", "-Werror", "-o", "submit", "submit.c", "-lrabbitmq"],
    "go": ["go", "build", "-o", "submit", "submit.go"],
}


def prepared(language: str, folder: Path) -> Path:
    """A copy of the producer in which it is ready to run."""
    for name in NEEDED.get(language, [language]):
        program(name)
    if language in LIBRARIES and not Path(LIBRARIES[language]).exists():
        missing(LIBRARIES[language])
    if language == "bash":
        return folder
    copy = folder / language
    shutil.copytree(PRODUCERS / language, copy, ignore=shutil.ignore_patterns("node_modules"))
    if language in PREPARED:
        environment = {**os.environ, **GO, "GOCACHE": str(folder / "cache")}
        done = subprocess.run(
            PREPARED[language], cwd=copy, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{' '.join(PREPARED[language])}: {done.stdout[-500:]}{done.stderr[-1500:]}"
    return copy


@pytest.mark.parametrize("language", COMMANDS)
async def test_a_producer_has_a_delayed_job_run_under_its_id_and_is_answered(
    place: Place, tmp_path: Path, language: str
) -> None:
    folder = await asyncio.to_thread(prepared, language, tmp_path)
    app: Callboard = place.app()

    @app.task(name="greet", queue="greetings")
    async def greet(name: str) -> str:
        return f"hello {name}"

    job_id = f"from-{language}"
    arguments = ["greetings", job_id, "greet", json.dumps([language]), "0.5", "a key"]
    async with running(app, actors=["worker", "intake", "delayed-scanner"]):
        listener = await asyncio.create_subprocess_exec(
            str(PRODUCERS / "events.sh"),
            "greetings",
            env=environment_of(place),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert listener.stdout is not None
            assert listener.stderr is not None
            await asyncio.wait_for(listener.stderr.readline(), END_SECONDS)  # its queue is there
            answered = await asyncio.to_thread(run, [*COMMANDS[language], *arguments], place, folder=folder)
            assert json.loads(answered) == {"ok": True, "jobs": [{"id": job_id, "status": "created"}]}
            seen = await asyncio.wait_for(listener.stdout.readline(), END_SECONDS)
        finally:
            listener.terminate()
            await listener.communicate()
        (event,) = json.loads(seen)["events"]
        assert (event["event"], event["job"]) == ("completed", job_id)
        await place.audit(app)
    show = [sys.executable, "-m", "callboard", "jobs", "show", job_id, "--queue", "greetings", "--json"]
    shown = json.loads(await asyncio.to_thread(run, show, place))
    assert (shown["result"], shown["deduplication_id"]) == (f"hello {language}", "a key")
    assert shown["run_at"] > shown["created_at"]


@pytest.mark.parametrize(
    ("path", "lines"),
    [("submit.sh", 11), ("events.sh", 10), ("node/submit.js", 12), ("php/submit.php", 14), ("ruby/submit.rb", 14)],
)
def test_a_producer_is_about_ten_lines_of_code(path: str, lines: int) -> None:
    code = [line for line in (PRODUCERS / path).read_text().splitlines() if line.strip()]

    assert len([line for line in code if not line.strip().startswith(("#", "//", "<?php"))]) <= lines
