"""The benchmark's own Redis and RabbitMQ, and what may be measured on them: producing, draining a backlog, latency."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import machine
from contestants import CALLBOARD, HERE, SCRIPTS, Contestant
from marks import Marks
from msgspec import Struct
from pymongo import MongoClient
from redis import Redis

from servers import MongoServer, OwnedProcess, RabbitMQServer, RedisServer

WARM = 0.1  # the first part of a drain, in which the worker starts, is not counted
LEAST_LEFT = 0.25  # of the jobs, when the last of several processes has begun
LIMIT_SECONDS = 300.0  # for one measurement


class BenchFailed(Exception):
    """A measurement that did not end, or ended wrongly; the message says which, with the end of the log."""


class Used(Struct, frozen=True):
    """What a stretch of work has used, in total."""

    seconds: float
    redis: float
    broker: float
    commands: int
    reads: int
    worker: float = 0.0

    def per(self, jobs: int) -> dict[str, float]:
        """CPU in us per job; Redis commands (those inside scripts too) and round trips (reads from sockets)."""
        return {
            "rate": jobs / self.seconds,
            "redis_us": self.redis / jobs * 1e6,
            "broker_us": self.broker / jobs * 1e6,
            "commands": self.commands / jobs,
            "round_trips": self.reads / jobs,
            "worker_us": self.worker / jobs * 1e6,
        }


class Scene:
    _serial: ClassVar[int] = 0

    """`mongo`: where Callboard keeps its jobs, in place of Redis, by the driver `motor` or by PyMongo."""

    def __init__(
        self,
        folder: Path,
        *,
        broker: RabbitMQServer,
        store: RedisServer,
        namespace: str = "bench",
        mongo: MongoServer | None = None,
        driver: str = "redis",
    ) -> None:
        self.mongo = mongo
        self.driver = driver
        self.folder = folder
        self.broker = broker
        self.store = store
        self.namespace = namespace
        self.redis = Redis(port=store.port, protocol=2)
        self.extra: dict[str, str] = {}

    def beside(self, namespace: str, *, broker: RabbitMQServer | None = None) -> Scene:
        """The same servers (or another broker), another namespace."""
        scene = Scene(
            self.folder,
            broker=broker or self.broker,
            store=self.store,
            namespace=namespace,
            mongo=self.mongo,
            driver=self.driver,
        )
        scene.extra = self.extra
        return scene

    def _environment(self, marks: Path | None, other: Path | None = None) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CALLBOARD_", "BENCH_"))},
            "PYTHONPATH": os.pathsep.join([str(HERE), str(SCRIPTS), os.environ.get("PYTHONPATH", "")]),
            "BENCH_BROKER": self.broker.url,
            "BENCH_STORE": self.store.url,
            "BENCH_MARKS": str(marks or ""),
            "BENCH_MARKS_OTHER": str(other or ""),
            "CALLBOARD_BROKER": self.broker.url,
            "CALLBOARD_STORE": self._kept_in(),
            "CALLBOARD_NAMESPACE": self.namespace,
            **self.extra,
        }

    def _kept_in(self) -> str:
        if self.mongo is None:
            return self.store.url
        return f"{self.mongo.url}&driver=motor" if self.driver == "motor" else self.mongo.url

    def marks(self, jobs: int) -> Path:
        Scene._serial += 1
        path = self.folder / f"{self.namespace}-{Scene._serial}.marks"
        Marks.create(path, jobs)
        return path

    def used(self, worker: int | None = None) -> Used:
        """Since the beginning; two of them make a stretch, see `between`."""
        info = self.redis.info("stats")
        return Used(
            seconds=time.monotonic(),
            redis=sum(machine.cpu_seconds(server.pid) for server in (self.store, self.mongo) if server is not None),
            broker=machine.cpu_seconds(self.broker.pid),
            commands=info["total_commands_processed"],
            reads=info.get("total_reads_processed", 0),
            worker=0.0 if worker is None else machine.cpu_seconds(worker),
        )

    # --- measurements ---

    def run_script(
        self,
        contestant: Contestant,
        *arguments: object,
        marks: Path | None = None,
        other: Path | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> tuple[dict[str, Any], Used]:
        """A script's answer, and what was used between its `ready` and its answer. `before` is called when it is ready,
        and not counted."""
        log = self.folder / f"{contestant.name}.log"
        with (
            log.open("ab") as errors,
            subprocess.Popen(
                contestant.script_command(*arguments),
                env=self._environment(marks, other),
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                if process.stdout.readline() != "ready\n":
                    raise self._failed(f"{contestant.name} {arguments}: did not get ready", log)
                before()
                start = self.used()
                process.stdin.write("go\n")
                process.stdin.flush()
                answered = process.stdout.readline()
                end = self.used()
                if not answered:
                    raise self._failed(f"{contestant.name} {arguments}: no answer", log)
                process.wait(60)
            finally:
                process.kill()
        return json.loads(answered), between(start, end)

    def produce(self, contestant: Contestant, how: str, jobs: int, *, first: int = 0) -> dict[str, float]:
        answer, used = self.run_script(contestant, how, jobs, first)
        return {**used.per(jobs), "rate": jobs / answer["seconds"], "producer_us": answer["cpu"] / jobs * 1e6}

    def start_worker(
        self, contestant: Contestant, processes: int, *more: str, marks: Path, other: Path | None = None
    ) -> OwnedProcess:
        return OwnedProcess(
            contestant.worker_command(processes, *more),
            environment=self._environment(marks, other),
            log=self.folder / f"{contestant.name}.log",
        )

    def drain(self, contestant: Contestant, path: Path, processes: int = 1) -> dict[str, float]:
        """Start a worker over the backlog, and measure from `WARM` of the jobs, or from where all its processes take
        part, to the last. Every job must have run exactly once."""
        marks = Marks(path)
        worker = self.start_worker(contestant, processes, *self._queue(contestant), marks=path)
        try:
            first = self.wait_for(marks, int(marks.jobs * WARM), worker, contestant, processes=processes)
            if marks.jobs - first < marks.jobs * LEAST_LEFT:
                raise BenchFailed(
                    f"{contestant.name}: too few jobs, {first} had run before all its processes took part"
                )
            before = self.used(worker.pid)
            self.wait_for(marks, marks.jobs, worker, contestant)
            after = self.used(worker.pid)
            time.sleep(0.3)  # for a second run of a job, were there one
            memory = machine.memory_megabytes(worker.pid)
            wrong = marks.wrong()
            if wrong:
                raise BenchFailed(f"{contestant.name}: {wrong}")
        finally:
            worker.terminate()
            path.unlink()
        used = between(before, after)
        return {**used.per(marks.jobs - first), "memory": memory}

    def latency(self, contestant: Contestant, jobs: int, *, how: str = "latency") -> dict[str, list[float]]:
        """Milliseconds from the call of enqueue to the handler's start, and to the result in the caller's hands."""
        path = self.marks(jobs + 100)
        worker = self.start_worker(contestant, 1, *self._queue(contestant), marks=path)
        queue = ("bench",) if contestant is CALLBOARD else ()
        try:
            time.sleep(2.0)  # its connections; the script's first jobs are not counted either
            answer, _ = self.run_script(contestant, how, jobs, *queue, marks=path)
        finally:
            worker.terminate()
            path.unlink()
        return answer

    def _queue(self, contestant: Contestant) -> tuple[str, ...]:
        return ("--queue", "bench") if contestant is CALLBOARD else ()

    def wait_for(
        self, marks: Marks, jobs: int, worker: OwnedProcess, contestant: Contestant, *, processes: int = 1
    ) -> int:
        """How many have run by the time that `jobs` of them have, and so many processes take part."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while marks.passed < jobs or (marks.processes < processes and marks.passed < marks.jobs):
            if not worker.running or time.monotonic() > deadline:
                raise self._failed(
                    f"{contestant.name}: the worker ended or stood still at {marks.passed} of {jobs} jobs",
                    self.folder / f"{contestant.name}.log",
                )
            time.sleep(0.005)
        return marks.passed

    def forget(self) -> None:
        """Empty the store between measurements: nobody is connected to it."""
        self.redis.flushall()
        if self.mongo is not None:
            with MongoClient[dict[str, Any]](self.mongo.url) as client:
                client.drop_database("callboard")

    def _failed(self, what: str, log: Path) -> BenchFailed:
        end = log.read_bytes()[-3000:].decode(errors="replace") if log.exists() else ""
        return BenchFailed(f"{what}; the end of its log:\n{end}")


def between(before: Used, after: Used) -> Used:
    return Used(**{name: getattr(after, name) - getattr(before, name) for name in Used.__struct_fields__})
