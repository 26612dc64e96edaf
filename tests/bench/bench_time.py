"""How late delayed jobs start: Callboard on Redis and on MongoDB, with one and with three scanners, beside arq,
dramatiq and taskiq, in the same run.

    tests/run tests/bench/bench_time.py -m bench -s

500 jobs with due times spread at random over 10 s, recorded before the first of them is due; workers with nothing else
to do. Late is the time from the due time to the first line of the handler, by the machine's clock. No job may start
early, none may run twice.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import Struct

from bench.contestants import HERE, SCRIPTS, Contestant
from faults.timed import LEAD_SECONDS, Run, Timed, percentile, wrong
from servers import OwnedProcess

JOBS = int(os.environ.get("BENCH_JOBS", "500"))
PEERS_WANTED = os.environ.get("BENCH_PEERS", "arq,dramatiq,taskiq").split(",")
SECONDS = 10.0
WANTED = {50: 5.0, 99: 50.0}  # ms
START_SECONDS = 5.0  # for the peers' processes, which do not say when they are ready


class Peer(Struct, frozen=True):
    contestant: Contestant
    processes: tuple[tuple[str, ...], ...]


def _peer(name: str, settings: str, packages: tuple[str, ...], *processes: tuple[str, ...]) -> Peer:
    contestant = Contestant(
        name=name,
        script=f"{name}_delays.py",
        requirements=f"{name}.txt",
        packages=packages,
        settings=settings,
        keeps="",
        acks="",
    )
    return Peer(contestant, processes)


ALL_PEERS = (
    _peer(
        "arq", "100 at a time, looks every 0.5 s (its default)", ("arq",), ("-m", "arq", "arq_delays.WorkerSettings")
    ),
    _peer(
        "dramatiq",
        "8 threads; delayed messages are held by the worker (its default)",
        ("dramatiq", "pika"),
        ("-m", "dramatiq", "dramatiq_delays", "--processes", "1", "--threads", "8", "--skip-logging"),
    ),
    _peer(
        "taskiq",
        "a scheduler that looks every second (its shortest) over schedules in Redis",
        ("taskiq", "taskiq-aio-pika", "taskiq-redis"),
        ("-m", "taskiq", "worker", "taskiq_delays:broker", "--workers", "1", "--log-level", "WARNING"),
        (
            *("-m", "taskiq", "scheduler", "taskiq_delays:scheduler", "--log-level", "WARNING"),
            *("--update-interval", "1", "--loop-interval", "1"),
        ),
    ),
)


PEERS = tuple(peer for peer in ALL_PEERS if peer.contestant.name in PEERS_WANTED)


def line(name: str, runs: Sequence[Run]) -> str:
    late = [run.late for run in runs]
    p50, p99, most = (percentile(late, percent) for percent in (50, 99, 100))
    early = sum(one < 0 for one in late)
    twice = len(runs) - len({run.number for run in runs})
    return f"{name:<34} p50 {p50:8.1f} ms   p99 {p99:8.1f} ms   most {most:8.1f} ms   early {early}   twice {twice}"


async def ours(folder: Path, *, store: str, broker: str, scanners: int) -> list[Run]:
    async with Timed(folder, store=store, broker=broker) as timed:
        await timed.start(scanners=scanners, workers=1)
        in_time = await timed.enqueue(JOBS, over_seconds=SECONDS)
        assert in_time, f"recording the jobs took longer than {LEAD_SECONDS} s"
        return await timed.runs(JOBS)


async def theirs(folder: Path, peer: Peer, *, store: str, broker: str) -> list[Run]:
    folder.mkdir()
    written = folder / "runs"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CALLBOARD_", "PYTHON"))},
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(HERE)]),
        "TIMED_RUNS": str(written),
        "BENCH_NAME": f"bench-{secrets.token_hex(6)}",
        "BENCH_STORE": store,
        "BENCH_BROKER": broker,
    }
    contestant = peer.contestant
    await asyncio.to_thread(contestant.prepare)
    processes = [
        OwnedProcess([contestant.python, *arguments], environment=environment, log=folder / "log")
        for arguments in peer.processes
    ]
    try:
        await asyncio.sleep(START_SECONDS)
        first = round((time.time() + LEAD_SECONDS) * 1000)
        script = contestant.script_command(JOBS, first, round(SECONDS * 1000))
        await asyncio.to_thread(subprocess.run, script, env=environment, check=True, timeout=60)
        assert time.time() * 1000 < first, f"{contestant.name} took longer than {LEAD_SECONDS} s to record the jobs"
        deadline = first / 1000 + SECONDS + 30
        while time.time() < deadline and len(read(written)) < JOBS:
            await asyncio.sleep(0.1)
        return read(written)
    finally:
        for process in processes:
            await asyncio.to_thread(process.terminate)


def read(path: Path) -> list[Run]:
    return [Run(*map(int, text.split())) for text in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.bench
async def test_delayed_jobs_start_within_milliseconds_of_their_time(
    redis_url: str, mongo_url: str, amqp_url: str, tmp_path: Path
) -> None:
    print(f"\n{JOBS} delayed jobs over {SECONDS:g} s, load {os.getloadavg()[0]:.1f} before", file=sys.stderr)
    measured: dict[str, list[Run]] = {}
    for store, url in (("Redis", redis_url), ("MongoDB", mongo_url)):
        for scanners in (1, 3):
            name = f"Callboard, {store}, {scanners} scanner{'s' * (scanners > 1)}"
            runs = await ours(tmp_path / f"{store}-{scanners}", store=url, broker=amqp_url, scanners=scanners)
            print(line(name, runs), file=sys.stderr)
            measured[name] = runs
    for peer in PEERS:
        runs = await theirs(tmp_path / peer.contestant.name, peer, store=redis_url, broker=amqp_url)
        print(line(peer.contestant.name, runs), f"  {len(runs)} of {JOBS} ran", file=sys.stderr)
    for peer in PEERS:
        print(f"{peer.contestant.versions()}: {peer.contestant.settings}", file=sys.stderr)
    for name, runs in measured.items():
        assert wrong(runs, JOBS) is None, name
    late = {name: [run.late for run in runs] for name, runs in measured.items()}
    assert {
        name: percent
        for name, values in late.items()
        for percent, most in WANTED.items()
        if percentile(values, percent) > most
    } == {}, "the percentiles that are later than wanted"
