"""The figures as a table, and the ratios with their targets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from contestants import CALLBOARD, COMPARED, DRAMATIQ, EVERY, TASKIQ
from msgspec import Struct
from rounds import Figures, percentile

ROWS = (
    ("**enqueue one by one**: jobs/s", "enqueue_single.rate"),
    ("- CPU us/job: producer", "enqueue_single.producer_us"),
    ("- CPU us/job: Redis", "enqueue_single.redis_us"),
    ("- CPU us/job: RabbitMQ", "enqueue_single.broker_us"),
    ("**enqueue, 100 callers at once**: jobs/s", "enqueue_callers.rate"),
    ("- CPU us/job: producer", "enqueue_callers.producer_us"),
    ("**enqueue in bulk**: jobs/s", "enqueue_bulk.rate"),
    ("- CPU us/job: producer", "enqueue_bulk.producer_us"),
    ("- CPU us/job: Redis", "enqueue_bulk.redis_us"),
    ("- CPU us/job: RabbitMQ", "enqueue_bulk.broker_us"),
    ("**one worker, jobs enqueued in bulk**: jobs/s", "one_worker_bulk.rate"),
    ("- CPU us/job: worker", "one_worker_bulk.worker_us"),
    ("- CPU us/job: Redis", "one_worker_bulk.redis_us"),
    ("- CPU us/job: RabbitMQ", "one_worker_bulk.broker_us"),
    ("- Redis commands per job", "one_worker_bulk.commands"),
    ("- round trips to Redis per job", "one_worker_bulk.round_trips"),
    ("- worker's memory, MB", "one_worker_bulk.memory"),
    ("**one worker, one job a message**: jobs/s", "one_worker_single.rate"),
    ("- CPU us/job: worker", "one_worker_single.worker_us"),
    ("- CPU us/job: Redis", "one_worker_single.redis_us"),
    ("- CPU us/job: RabbitMQ", "one_worker_single.broker_us"),
    ("- Redis commands per job", "one_worker_single.commands"),
    ("- round trips to Redis per job", "one_worker_single.round_trips"),
    ("**the same on the plain path** (`?frames=plain`): jobs/s", "one_worker_plain.rate"),
    ("- CPU us/job: worker", "one_worker_plain.worker_us"),
    ("**two worker processes, bulk**: jobs/s", "two_workers.rate"),
    ("- CPU us/job: both workers", "two_workers.worker_us"),
    ("- memory of both, MB", "two_workers.memory"),
)
LATENCIES = (("**one job when idle**, ms to its start", "start"), ("**one job when idle**, ms to its result", "result"))


class Ratio(Struct, frozen=True, kw_only=True):
    """`values`: one a round. `at_least`, `at_most`: the target; neither: for orientation."""

    name: str
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool:
        middle = statistics.median(self.values)
        return (self.at_least is None or middle >= self.at_least) and (self.at_most is None or middle <= self.at_most)

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        return "yes" if self.reached else "**no**"

    @property
    def target(self) -> str:
        if self.at_least is None and self.at_most is None:
            return ""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(values: Sequence[float] | None) -> str:
    """Median, least and most."""
    if not values:
        return ""
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}..{number(max(values))})"


def latency_cell(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    return f"p50 {number(percentile(list(values), 50))}, p99 {number(percentile(list(values), 99))}"


def table(figures: dict[str, Figures]) -> list[str]:
    lines = ["| | " + " | ".join(one.name for one in EVERY) + " |", "|---" + "|---:" * len(EVERY) + "|"]
    for title, name in ROWS:
        lines.append(_row(title, [cell(figures[one.name].get(name)) for one in EVERY]))
    for title, name in LATENCIES:
        lines.append(_row(title, [latency_cell(figures[one.name].get(f"latency.{name}")) for one in EVERY]))
        confirmed = [latency_cell(figures[one.name].get(f"confirmed.{name}")) for one in EVERY]
        lines.append(_row("- the same, with the enqueue confirmed", confirmed))
    for title, values in (
        ("kept of a job", [one.keeps for one in EVERY]),
        ("a message is acknowledged", [one.acks for one in EVERY]),
        ("as measured", [one.settings for one in EVERY]),
    ):
        lines.append(_row(title, values))
    return lines


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round: what disturbed one was there for the other too."""
    return [one / other for one, other in zip(above, below, strict=True)]


def ratios(figures: dict[str, Figures]) -> list[Ratio]:
    mine = figures[CALLBOARD.name]
    found: list[Ratio] = []
    bulk, single, plain = "one_worker_bulk", "one_worker_single", "one_worker_plain"
    works = (
        ("one worker, jobs enqueued in bulk", bulk, bulk, "worker_us", {DRAMATIQ: 8.0, TASKIQ: 8.0}),
        ("one worker, one job a message", single, single, "worker_us", {DRAMATIQ: 6.0, TASKIQ: 6.0}),
        ("the same on the plain path", plain, single, "worker_us", {DRAMATIQ: 2.5, TASKIQ: 2.5}),
        ("enqueue in bulk", "enqueue_bulk", "enqueue_bulk", "producer_us", {DRAMATIQ: 2.0, TASKIQ: 5.0}),
    )
    for title, measurement, measured, cpu, targets in works:
        for other, target in targets.items():
            theirs = figures[other.name]
            rates = quotients(mine[f"{measurement}.rate"], theirs[f"{measured}.rate"])
            found.append(Ratio(name=f"{title}: jobs/s, times {other.name}", values=rates, at_least=target))
            costs = quotients(theirs[f"{measured}.{cpu}"], mine[f"{measurement}.{cpu}"])
            found.append(Ratio(name=f"{title}: jobs per CPU second, times {other.name}", values=costs, at_least=target))
    for what in ("start", "result"):
        for other in COMPARED[1:]:
            for how, note in (("latency", ""), ("confirmed", " (confirmed)")):
                theirs_p50 = figures[other.name].get(f"{how}.{what}_p50")
                if theirs_p50:
                    name = f"idle latency to {what}, p50, times {other.name}{note}"
                    found.append(Ratio(name=name, values=quotients(mine[f"latency.{what}_p50"], theirs_p50), at_most=1))
    return found


def ratio_table(found: Sequence[Ratio]) -> list[str]:
    lines = ["| ratio, round by round | median (least..most) | target | reached |", "|---|---:|---:|---|"]
    for ratio in found:
        lines.append(_row(ratio.name, [cell(ratio.values), ratio.target, ratio.verdict]))
    return lines
