"""Whether a job costs more where more is kept or declared, and whether a backlog on one queue delays another's jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from contestants import CALLBOARD, RAW, Contestant
from marks import Marks
from msgspec import Struct
from report import Ratio, cell, latency_cell, quotients
from rounds import Figures, Results, percentile
from scene import BenchFailed, Scene

from callboard.brokers.topology import Names
from servers import OwnedProcess, RabbitMQServer

COSTS = (
    ("enqueue_bulk", "producer_us"),
    ("enqueue_bulk", "redis_us"),
    ("one_worker_bulk", "worker_us"),
    ("one_worker_bulk", "redis_us"),
    ("one_worker_bulk", "broker_us"),
)
MARGIN = 1.15
FEW_KEPT = 1_000
REST_SECONDS = 2.0  # for the servers, from what was before
REWRITE_SECONDS = 300.0
Workers = tuple[tuple[str, ...], ...]  # the queues of each, as arguments; the last one serves the backlog
RAW_MESSAGE = "a plain aio-pika message, and a worker for the backlog"  # what the machine has left, at best
SERVED: dict[str, Workers] = {
    "one worker, the other queue first": (("--queue", "other", "--queue", "bench"),),
    "one worker, in turns": (("--queue", "bench=1", "--queue", "other=1"),),
    "a worker for each": (("--queue", "other"), ("--queue", "bench")),
    RAW_MESSAGE: (("--queue", "bench"),),
}


class Growth(Struct, frozen=True, kw_only=True):
    rounds: int
    jobs: int
    kept: int
    keep_seconds: float
    queues: int
    backlog: int
    turns: int
    latency: int


FULL = Growth(
    rounds=5,
    jobs=20_000,
    kept=1_000_000,
    keep_seconds=420.0,
    queues=1_000,
    backlog=200_000,
    turns=3,
    latency=200,
)


def grow(scene: Scene, growth: Growth, results: Results, say: Callable[[str], None]) -> None:
    """What a round adds to the jobs kept is removed after it: else a table of Redis doubled in some round, which costs
    each job half as much again until all of the table has moved."""
    few, many = scene.beside("few"), scene.beside("many")
    few.extra = many.extra = {"CALLBOARD_KEEP_COMPLETED_COUNT": "100000000"}
    say(f"keeping {growth.kept:,} jobs, for {growth.keep_seconds:.0f} s at most")
    answer, _ = many.run_script(CALLBOARD, "keep", growth.kept, growth.keep_seconds)
    results.add("kept", "count", {"jobs": answer["kept"]})
    _rest_from_rewriting(scene)
    with RabbitMQServer(scene.folder / "rabbitmq-many") as broker:
        crowded = many.beside("crowded", broker=broker)
        say(f"declaring {growth.queues:,} queues")
        crowded.run_script(CALLBOARD, "declare", growth.queues - 1)
        for place in (few, crowded):
            place.run_script(CALLBOARD, "keep", FEW_KEPT, 60)
        for number in range(growth.rounds):
            say(f"costs with more kept and more queues, round {number + 1} of {growth.rounds}")
            places = [("few", few), ("many", many), ("crowded", crowded)]
            turn = number % len(places)
            for name, place in (*places[turn:], *places[:turn]):
                path = place.marks(growth.jobs)
                results.add(name, "enqueue_bulk", place.produce(CALLBOARD, "bulk", growth.jobs))
                results.add(name, "one_worker_bulk", place.drain(CALLBOARD, path))
                place.run_script(CALLBOARD, "trim", growth.jobs)


def _rest_from_rewriting(scene: Scene) -> None:
    """Redis rewrites its file when that has doubled, in a fork of all that is kept, and whoever is measured meanwhile
    pays for the pages that it copies: from now on it does not."""
    scene.redis.config_set("auto-aof-rewrite-percentage", 0)
    deadline = time.monotonic() + REWRITE_SECONDS
    while scene.redis.info("persistence")["aof_rewrite_in_progress"]:
        if time.monotonic() > deadline:
            raise BenchFailed(f"Redis still rewrites its append-only file after {REWRITE_SECONDS:.0f} s")
        time.sleep(0.2)
    time.sleep(REST_SECONDS)


def other_queue(scene: Scene, growth: Growth, results: Results, say: Callable[[str], None]) -> None:
    """How soon a job of the other queue starts, idle and under the backlog by turns: who else uses the machine slows
    both."""
    for name, workers in SERVED.items():
        place = scene.beside(f"two-{list(SERVED).index(name)}")
        for number in range(growth.turns):
            say(f"latency on another queue, {name}, turn {number + 1} of {growth.turns}")
            who = RAW if name == RAW_MESSAGE else CALLBOARD
            results.extend(name, "idle.start", _latency(place, who, workers, place.marks(1), growth)["start"])
            path = place.marks(growth.backlog)
            place.produce(CALLBOARD, "bulk", growth.backlog)
            busy = _latency(place, who, workers, path, growth)
            results.extend(name, "backlog.start", busy["start"])
            results.extend(name, "backlog.left", busy["left"])
            results.extend(name, "backlog.rate", busy["rate"])
            scene.forget()
            for queue in ("bench",) if who is RAW else ("bench", "other"):  # else the next idle worker had a backlog
                scene.broker.ctl("purge_queue", Names(place.namespace).job_queue(queue))
            time.sleep(REST_SECONDS)


def _latency(place: Scene, who: Contestant, workers: Workers, path: Path, growth: Growth) -> dict[str, list[float]]:
    marks = Marks(path)
    other = place.marks(growth.latency + 100)
    started: list[OwnedProcess] = []
    passed = 0

    def work() -> None:
        nonlocal passed
        if who is RAW:
            started.append(place.start_worker(RAW, 1, marks=path, other=other))
        started.extend(place.start_worker(CALLBOARD, 1, *queues, marks=path, other=other) for queues in workers)
        if marks.jobs == 1:
            time.sleep(2.0)
        else:
            passed = place.wait_for(marks, marks.jobs // 50, started[-1], CALLBOARD)

    try:
        answer, used = place.run_script(who, "latency", growth.latency, "other", marks=path, other=other, before=work)
        left = marks.jobs - marks.passed
    finally:
        for worker in started:
            worker.terminate()
    return {**answer, "left": [float(left)], "rate": [(marks.jobs - left - passed) / used.seconds]}


def growth_table(figures: dict[str, Figures]) -> list[str]:
    lines = [f"| CPU us/job | {' | '.join(f'{m} {c}'.replace('_', ' ') for m, c in COSTS)} |", "|---" * 6 + "|"]
    kept = round(figures["kept"]["count.jobs"][0])
    for name, title in (
        ("few", "1,000 jobs kept, 1 queue"), ("many", f"{kept:,} jobs kept"), ("crowded", "1,000 queues")
    ):  # fmt: skip
        cells = [cell(figures[name][f"{measurement}.{cost}"]) for measurement, cost in COSTS]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    title = "ms to the start of a job on another queue, or to the receipt of a message"
    lines += ["", f"| {title} | idle | under the backlog | the backlog's jobs/s meanwhile |", "|---|---:|---:|---:|"]
    for name in SERVED:
        idle, busy = (latency_cell(figures[name][f"{when}.start"]) for when in ("idle", "backlog"))
        lines.append(f"| {name} | {idle} | {busy} | {cell(figures[name]['backlog.rate'])} |")
    return lines


def growth_ratios(figures: dict[str, Figures]) -> list[Ratio]:
    found: list[Ratio] = []
    kept = round(figures["kept"]["count.jobs"][0]) if "kept" in figures else 0
    titles = (("many", f"{kept:,} jobs kept, times the same with 1,000"), ("crowded", "1,000 queues, times 1"))
    for name, title in titles:
        for measurement, cost in COSTS:
            key = f"{measurement}.{cost}"
            if name in figures:
                what = f"{measurement.replace('_', ' ')}, CPU of {cost.removesuffix('_us')}"
                values = quotients(figures[name][key], figures["few"][key])
                found.append(Ratio(name=f"{title}: {what}", values=values, at_most=MARGIN))
    for name in SERVED:
        if name in figures:
            other = figures[name]
            ratio = percentile(other["backlog.start"], 99) / percentile(other["idle.start"], 99)
            left = round(min(other["backlog.left"]))
            title = f"start on another queue under a backlog ({left:,} left at the end), p99, times idle: {name}"
            found.append(Ratio(name=title, values=[ratio], at_most=None if name == RAW_MESSAGE else 2.0))
    if RAW_MESSAGE in figures:
        floor = figures[RAW_MESSAGE]["backlog.start"]
        for name in SERVED:
            if name in figures and name != RAW_MESSAGE:
                for percent in (50, 99):
                    ratio = percentile(figures[name]["backlog.start"], percent) / percentile(floor, percent)
                    title = f"start on another queue under a backlog, p{percent}, times a plain message: {name}"
                    found.append(Ratio(name=title, values=[ratio]))
    return found
