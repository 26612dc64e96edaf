"""Whether a job costs more where more is kept or declared, and whether a backlog on one queue delays another's jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from contestants import CALLBOARD
from marks import Marks
from msgspec import Struct
from report import Ratio, quotients
from rounds import Figures, Results, percentile
from scene import Scene

from servers import RabbitMQServer

COSTS = (
    ("enqueue_bulk", "producer_us"),
    ("enqueue_bulk", "redis_us"),
    ("one_worker_bulk", "worker_us"),
    ("one_worker_bulk", "redis_us"),
    ("one_worker_bulk", "broker_us"),
)
MARGIN = 1.15


class Growth(Struct, frozen=True, kw_only=True):
    rounds: int
    jobs: int
    kept: int
    keep_seconds: float
    queues: int
    backlog: int
    latency: int


FULL = Growth(rounds=5, jobs=20_000, kept=1_000_000, keep_seconds=420.0, queues=1_000, backlog=200_000, latency=300)


def grow(scene: Scene, growth: Growth, results: Results, say: Callable[[str], None]) -> None:
    few, many = scene.beside("few"), scene.beside("many")
    few.extra = many.extra = {"CALLBOARD_KEEP_COMPLETED_COUNT": "100000000"}
    say(f"keeping {growth.kept:,} jobs, for {growth.keep_seconds:.0f} s at most")
    answer, _ = many.run_script(CALLBOARD, "keep", growth.kept, growth.keep_seconds)
    results.add("kept", "count", {"jobs": answer["kept"]})
    with RabbitMQServer(scene.folder / "rabbitmq-many") as broker:
        crowded = scene.beside("crowded", broker=broker)
        say(f"declaring {growth.queues:,} queues")
        crowded.run_script(CALLBOARD, "declare", growth.queues - 1)
        crowded.run_script(CALLBOARD, "keep", 1_000, 60)
        for number in range(growth.rounds):
            say(f"costs with more kept and more queues, round {number + 1} of {growth.rounds}")
            few.namespace = f"few-{number}"  # a new one each time: it must not grow either
            few.run_script(CALLBOARD, "keep", 1_000, 60)
            for name, place in (("few", few), ("many", many), ("crowded", crowded)):
                path = place.marks(growth.jobs)
                results.add(name, "enqueue_bulk", place.produce(CALLBOARD, "bulk", growth.jobs))
                results.add(name, "one_worker_bulk", place.drain(CALLBOARD, path))


def other_queue(scene: Scene, growth: Growth, results: Results, say: Callable[[str], None]) -> None:
    """The same worker serves both queues, the other one first; idle first, then under the backlog."""
    place = scene.beside("two")
    other = place.marks(growth.latency + 100)
    say(f"latency on another queue, idle and under a backlog of {growth.backlog:,}")
    idle = _latency(place, place.marks(1), other, growth)
    results.extend("other_queue", "idle.start", idle["start"])
    path = place.marks(growth.backlog)
    place.produce(CALLBOARD, "bulk", growth.backlog)
    other = place.marks(growth.latency + 100)
    busy = _latency(place, path, other, growth)
    results.extend("other_queue", "backlog.start", busy["start"])
    results.add("other_queue", "backlog", {"left": busy["left"][0]})


def _latency(place: Scene, path: Path, other: Path, growth: Growth) -> dict[str, list[float]]:
    marks = Marks(path)
    queues = ("--queue", "other", "--queue", "bench")
    worker = place.start_worker(CALLBOARD, 1, *queues, marks=path, other=other)
    try:
        time.sleep(2.0)
        if marks.jobs > 1:
            place.wait_for(marks, marks.jobs // 50, worker, CALLBOARD)
        answer, _ = place.run_script(CALLBOARD, "latency", growth.latency, "other", marks=path, other=other)
        left = marks.jobs - marks.passed
    finally:
        worker.terminate()
    return {**answer, "left": [float(left)]}


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
    if "other_queue" in figures:
        other = figures["other_queue"]
        left = round(other["backlog.left"][0])
        ratio = percentile(other["backlog.start"], 99) / percentile(other["idle.start"], 99)
        name = f"start on another queue under a backlog, p99, times idle ({left:,} jobs were left at the end)"
        found.append(Ratio(name=name, values=[ratio], at_most=2.0))
    return found
