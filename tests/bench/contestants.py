"""The systems that are compared: how each one's worker is started, what it keeps of a job, and when it acknowledges."""

from __future__ import annotations

import subprocess
import sys
import venv
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

HERE = Path(__file__).parent
SCRIPTS = HERE / "systems"
ENVIRONMENTS = HERE / ".peers"
CONCURRENCY = 100


class Contestant(Struct, frozen=True, kw_only=True):
    """`worker`: the arguments after the interpreter; {processes} is filled in. `requirements`: those of a peer, which
    gets an environment of its own; None: the one that the benchmark itself runs in."""

    name: str
    script: str
    worker: tuple[str, ...] = ()
    requirements: str | None = None
    packages: tuple[str, ...]
    settings: str
    keeps: str
    acks: str

    @property
    def python(self) -> str:
        return str(ENVIRONMENTS / self.name / "bin" / "python") if self.requirements else sys.executable

    def script_command(self, *arguments: object) -> list[str]:
        return [self.python, str(SCRIPTS / self.script), *map(str, arguments)]

    def worker_command(self, processes: int, *more: str) -> list[str]:
        return [self.python, *(argument.format(processes=processes) for argument in self.worker), *more]

    def prepare(self) -> None:
        """Make the environment, unless it is there and its requirements are the same."""
        if self.requirements is None:
            return
        folder = ENVIRONMENTS / self.name
        stamp = folder / "installed"
        wanted = f"{sys.version} {sha256((SCRIPTS / self.requirements).read_bytes()).hexdigest()}"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"making an environment for {self.name}", file=sys.stderr)
        venv.EnvBuilder(clear=True, with_pip=True).create(folder)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", self.requirements]
        subprocess.run([self.python, *install], cwd=SCRIPTS, check=True, stdin=subprocess.DEVNULL, timeout=600)
        stamp.write_text(wanted)

    def versions(self) -> str:
        program = (
            "import sys; from importlib.metadata import version; "
            "print(*(f'{name} {version(name)}' for name in sys.argv[1:]), sep=', ')"
        )
        done = subprocess.run(
            [self.python, "-c", program, *self.packages], check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()


CALLBOARD = Contestant(
    name="callboard",
    script="callboard_jobs.py",
    worker=(
        *("-m", "callboard", "run", "worker", "--app", "callboard_jobs:app", "--concurrency", str(CONCURRENCY)),
        *("--processes", "{processes}", "--log-level", "warning"),
    ),
    packages=("callboard", "aio-pika", "redis", "uvloop"),
    settings=f"async handler, {CONCURRENCY} at a time; each enqueue returns after Redis and the broker's confirm",
    keeps="record, states, attempts with times, arguments, result, in Redis; outbox and lease; events",
    acks="once the claim is in Redis; the worker's lease guards the run",
)
DRAMATIQ = Contestant(
    name="dramatiq",
    script="dramatiq_jobs.py",
    worker=("-m", "dramatiq", "dramatiq_jobs", "--processes", "{processes}", "--threads", "8", "--skip-logging"),
    requirements="dramatiq.txt",
    packages=("dramatiq", "pika", "redis"),
    settings="sync handler, 8 threads (its default); one by one: confirmed, in bulk: an unconfirmed loop (its default)",
    keeps="the result, for 10 minutes, in Redis; no state",
    acks="after the run, when the result is stored",
)
TASKIQ = Contestant(
    name="taskiq",
    script="taskiq_jobs.py",
    worker=(
        *("-m", "taskiq", "worker", "taskiq_jobs:broker", "--workers", "{processes}"),
        *("--max-async-tasks", str(CONCURRENCY), "--log-level", "WARNING"),
    ),
    requirements="taskiq.txt",
    packages=("taskiq", "taskiq-aio-pika", "taskiq-redis", "aio-pika", "uvloop"),
    settings=(
        f"async handler, {CONCURRENCY} at a time; confirmed; classic queue (its default: quorum), qos 100 (10), "
        "results polled every 1 ms (200)"
    ),
    keeps="the result, for 10 minutes, in Redis; no state",
    acks="after the run, when the result is stored (its default)",
)
RAW = Contestant(
    name="aio-pika",
    script="aio_pika_messages.py",
    worker=(str(SCRIPTS / "aio_pika_messages.py"), "receive"),
    packages=("aio-pika",),
    settings="raw publish, confirmed, and consume with prefetch 200: no task, no job",
    keeps="nothing",
    acks="each message after its mark is set",
)
COMPARED = (CALLBOARD, DRAMATIQ, TASKIQ)
EVERY = (*COMPARED, RAW)
