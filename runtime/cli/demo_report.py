"""What happened in the demo: kept from the events on the broker, and drawn for 80 columns."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...metadata.contract import Counts
from ..wire import Event
from .demo_tasks import SHOWS
from .screen import STATE_STYLES, count_text, printable, safe, table

LATEST = 9
RATE_SECONDS = 2.0
OUTCOMES = ("completed", "retried", "failed")
_STYLES = {**STATE_STYLES, "retried": "yellow"}
_STATES = ("waiting", "delayed", "active", "completed", "failed")


class Report:
    """`began`: by the app's wall clock, in ms."""

    def __init__(self, *, began: int, seconds: float) -> None:
        self.began = began
        self.seconds = seconds
        self.tallies: dict[str, Counter[str]] = {task: Counter() for task in SHOWS}
        self.latest: deque[Event] = deque(maxlen=LATEST)
        self._recent: deque[tuple[int, str]] = deque(maxlen=10_000)

    def add(self, event: Event) -> None:
        self.tallies.setdefault(event.task, Counter())[event.event] += 1
        self.latest.appendleft(event)
        self._recent.append((event.at, event.event))

    @property
    def totals(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for tally in self.tallies.values():
            total.update(tally)
        return total

    def since(self, moment: int) -> float:
        """Seconds from the beginning."""
        return max(0.0, (moment - self.began) / 1000)

    def rates(self, now: int) -> dict[str, float]:
        """Events a second, over the last two."""
        span = min(RATE_SECONDS, max(0.1, self.since(now)))
        recent = Counter(name for at, name in self._recent if at > now - span * 1000)
        return {name: recent[name] / span for name in OUTCOMES}

    def to_json(self, counts: Mapping[str, Counts]) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "tasks": {task: {name: tally[name] for name in OUTCOMES} for task, tally in self.tallies.items()},
            "queues": {queue: {state: getattr(count, state) for state in _STATES} for queue, count in counts.items()},
        }


def line_of(report: Report, event: Event) -> str:
    """An event in a plain log."""
    return f"{report.since(event.at):5.1f} s  {_what(event)}"


def progress_line(report: Report, counts: Mapping[str, Counts], *, now: int) -> str:
    states = ", ".join(f"{sum(getattr(c, state) for c in counts.values())} {state}" for state in _STATES)
    return f"{report.since(now):5.1f} s of {report.seconds:g}: {states}"


def live_view(report: Report, counts: Mapping[str, Counts], *, now: int, stopping: bool) -> RenderableType:
    left = max(0.0, report.seconds - report.since(now))
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(
        Text.assemble(("Callboard demo", "bold"), ("  four actors in one process, in memory", "dim")),
        Text("ending in order" if stopping else f"{left:3.0f} s left", style="bold yellow" if stopping else "bold"),
    )
    bar = ProgressBar(
        total=report.seconds, completed=report.seconds - left, style="bright_black", complete_style="cyan"
    )
    rates = Text("a second   ", style="dim")
    for name, rate in report.rates(now).items():
        rates.append(f"{name} ", style="dim").append(f"{rate:<7.1f}", style=_STYLES[name])
    rates.append("Ctrl-C ends", style="dim")
    return Padding(Group(head, bar, "", _queues(counts), "", rates, "", _latest(report)), (1, 1, 0, 1))


def _queues(counts: Mapping[str, Counts]) -> Table:
    made = table("queue", *_STATES, right=_STATES)
    for column in made.columns:
        column.min_width = 9 if column.header != "queue" else 14
    for queue, count in sorted(counts.items()):
        made.add_row(safe(queue), *(count_text(getattr(count, state), STATE_STYLES[state]) for state in _STATES))
    return made


def _latest(report: Report) -> Table:
    made = Table.grid(expand=True, padding=(0, 2))
    made.add_column(justify="right", min_width=6, no_wrap=True)
    made.add_column(min_width=9, no_wrap=True)
    made.add_column(min_width=17, no_wrap=True)
    made.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    events = list(report.latest)
    for event in events:
        style = _STYLES.get(event.event, "")
        made.add_row(
            Text(f"{report.since(event.at):.1f} s", style="dim"),
            safe(event.event, style),
            safe(event.task),
            safe(_detail(event), "dim"),
        )
    for _ in range(LATEST - len(events)):
        made.add_row("", "", "", "")
    return made


def closing_table(report: Report) -> Table:
    made = table("task", "what it shows", "runs", *OUTCOMES, right=("runs", *OUTCOMES))
    for task, tally in report.tallies.items():
        made.add_row(
            safe(task),
            safe(SHOWS.get(task, "")),
            count_text(sum(tally.values())),
            *(count_text(tally[name], _STYLES[name]) for name in OUTCOMES),
        )
    made.add_section()
    totals = report.totals
    made.add_row(
        Text("all", style="bold"),
        "",
        count_text(sum(totals.values()), "bold"),
        *(count_text(totals[name], f"bold {_STYLES[name]}") for name in OUTCOMES),
    )
    return made


def closing_line(counts: Mapping[str, Counts], *, beats: int) -> str:
    delayed = sum(count.delayed for count in counts.values())
    waiting = sum(count.waiting for count in counts.values())
    return (
        f"{delayed} jobs wait for their time, {waiting} for a worker; the beat came {beats} times. "
        "With Redis and RabbitMQ all that would be there after a restart: callboard up --help"
    )


def _what(event: Event) -> str:
    return printable(f"{event.event:<9}  {event.task:<17}  {_detail(event)}")


def _detail(event: Event) -> str:
    attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
    error = (event.error or "").rpartition("demo_tasks.")[2].removeprefix("SampleApp.")
    return ", ".join(part for part in (attempt, error) if part)
