"""What is counted, how it is written for Prometheus, and that nobody makes it grow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from callboard import Callboard
from callboard.metadata.contract import Claimed, Counts, Ending, Inspection, Jobs, Outcome, QueueControl, Verdict
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import Job, State
from callboard.runtime.clock import SystemClock
from callboard.runtime.job_view import Attempt, could_run_since
from callboard.runtime.metrics import COUNTED, OTHER, Instrument, Kind, Metrics, Reading, Value
from callboard.runtime.options import CallOptions
from callboard.runtime.otlp_metrics import OtlpMetrics
from callboard.runtime.prometheus import exposition
from callboard.runtime.queue_gauges import ASKED, MOST_QUEUES, QueueGauges
from callboard.runtime.readings import REPORTED
from callboard.runtime.run import Run
from callboard.runtime.telemetry_names import ATTRIBUTES
from callboard.runtime.wire import Ticket, encode

ROOT = Path(__file__).parents[2]


class StillClock(SystemClock):
    """`moment`: in ms since the epoch, and since anything else."""

    def __init__(self, moment: int) -> None:
        self.moment = moment

    def now(self) -> int:
        return self.moment

    def elapsed(self) -> float:
        return self.moment / 1000


def read(readings: Sequence[Reading]) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(exposition(readings).decode())}


def value(families: Mapping[str, Metric], name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if (sample.name, sample.labels) == (name, labels)
    ]
    return float(found)


def run_of(queue: str, task: str, *, sent_at: int, started_at: int, called: bool = True) -> Run:
    ticket = Ticket(id="j", queue=queue, task=task, created_at=1, dispatch=1)
    run = Run(queue=queue, ticket=ticket, claimed=Claimed("j", Verdict.CLAIMED), boot="b", started_at=started_at)
    run.sent_at = sent_at
    if called:
        run.context = object()  # type: ignore[assignment]
    return run


def outcome(ending: Ending) -> Outcome:
    return Outcome(id="j", dispatch=1, owner="b", ending=ending)


def test_a_run_is_counted_with_its_wait_its_duration_and_its_outcome() -> None:
    clock = StillClock(10_300)
    metrics = Metrics(clock, knows=lambda name: name == "send")
    run = run_of("mail", "send", sent_at=8_000, started_at=10_000)
    metrics.started(run)
    metrics.ended(run, outcome(Ending.RETRY))
    waiting = run_of("mail", "send", sent_at=8_000, started_at=10_000, called=False)
    metrics.ended(waiting, outcome(Ending.RELEASE))  # it never had a slot

    families = read(metrics.read())
    labels = {"queue": "mail", "task": "send"}
    assert value(families, "callboard_wait_seconds_sum", **labels) == 2.0
    assert value(families, "callboard_run_seconds_sum", **labels) == pytest.approx(0.3)
    assert value(families, "callboard_run_seconds_count", **labels) == 1
    assert value(families, "callboard_run_seconds_bucket", **labels, le="0.25") == 0
    assert value(families, "callboard_run_seconds_bucket", **labels, le="0.5") == 1
    assert value(families, "callboard_run_seconds_bucket", **labels, le="+Inf") == 1
    outcomes = {
        name: value(families, "callboard_runs_total", **labels, outcome=name)
        for name in ("completed", "failed", "cancelled", "retried", "released", "parked")
    }
    assert outcomes == {"completed": 0, "failed": 0, "cancelled": 0, "retried": 1, "released": 1, "parked": 0}


def test_clocks_that_disagree_make_no_negative_durations_and_a_moment_that_nobody_told_none_at_all() -> None:
    metrics = Metrics(StillClock(5_000), knows=lambda name: True)
    for sent_at in (9_000, 0):
        run = run_of("mail", "send", sent_at=sent_at, started_at=6_000)
        metrics.started(run)
        metrics.ended(run, outcome(Ending.COMPLETED))

    families = read(metrics.read())
    labels = {"queue": "mail", "task": "send"}
    assert value(families, "callboard_wait_seconds_sum", **labels) == 0
    assert value(families, "callboard_wait_seconds_count", **labels) == 1
    assert value(families, "callboard_run_seconds_sum", **labels) == 0


def test_names_that_strangers_make_up_share_one_place() -> None:
    metrics = Metrics(SystemClock(), knows=lambda name: name == "send", most=50)
    for number in range(2_000):
        for queue, task in (("mail", f"\x1b[31m{number}"), (f"queue-{number}", "send")):
            run = run_of(queue, task, sent_at=1, started_at=2)
            metrics.started(run)
            metrics.ended(run, outcome(Ending.FAILED))
        metrics.finished_late(f"queue-{number}")
        metrics.stalled(f"queue-{number}", again=1, failed=0)

    readings = metrics.read()
    assert max(len(reading.points) for reading in readings) <= 51 * 6
    families = read(readings)
    assert value(families, "callboard_runs_total", queue="mail", task=OTHER, outcome="failed") == 2_000
    counted = [sample.value for sample in families["callboard_runs"].samples if sample.labels["outcome"] == "failed"]
    assert sum(counted) == 4_000
    assert sum(sample.value for sample in families["callboard_late_finishes"].samples) == 2_000
    assert value(families, "callboard_stalled_jobs_total", queue=OTHER, became="again") > 1_900
    assert b"\x1b" not in exposition(readings)


def test_any_text_comes_back_from_the_exposition_as_it_was() -> None:
    odd = 'a"b\\c\nd\\n{}=,é'
    instrument = Instrument(name="x", semantic="x", kind=Kind.GAUGE, help='say "x"\\\nand y', labels=("label",))
    (family,) = read([Reading(instrument, [Value((odd,), 1.5)])]).values()
    assert (family.samples[0].labels, family.samples[0].value) == ({"label": odd}, 1.5)
    assert exposition([Reading(instrument, [Value(("\ud800",), 1)])])  # what is no text is written somehow


def test_every_instrument_is_named_once_has_attributes_and_is_explained() -> None:
    every = (*COUNTED, *REPORTED, *ASKED)
    design = (ROOT / "DESIGN.md").read_text()
    assert len({one.name for one in every}) == len({one.semantic for one in every}) == len(every)
    for one in every:
        assert one.name.endswith("_total") == (one.kind is Kind.COUNTER), one
        assert one.name.endswith("_seconds") == (one.unit == "s"), one
        assert set(one.labels) <= set(ATTRIBUTES), one
        assert f"`{one.name}`" in design, f"{one.name} is not in DESIGN.md"


# --- what the store is asked for ---


@asynccontextmanager
async def opened() -> AsyncIterator[Callboard]:
    async with Callboard(broker="memory://", store="memory://") as app:
        yield app


def gauges_of(app: Callboard, store: Any = None, clock: SystemClock | None = None) -> QueueGauges:
    return QueueGauges(store or app.connections.store, clock or app.clock, preferred=lambda name: name == "mine")


async def test_depth_age_and_outbox_are_those_of_the_store() -> None:
    async with opened() as app:
        mail = app.queue("mail")
        await mail.add("send", [])
        await mail.add("send", [], delay=0.05)
        await app.connections.dispatcher.flush()
        await mail.pause()
        unsent = app.new_job("send", [], {}, CallOptions(), queue="unsent")
        await app.connections.store.get(QueueControl).register(["unsent"])
        await app.connections.store.get(Jobs).enqueue([unsent], now=app.clock.now(), grace=60_000)
        await asyncio.sleep(0.1)
        families = read(await gauges_of(app).read())

    assert value(families, "callboard_jobs", queue="mail", state="waiting") == 1
    assert value(families, "callboard_jobs", queue="mail", state="delayed") == 1
    assert value(families, "callboard_queue_paused", queue="mail") == 1
    assert 0.1 <= value(families, "callboard_oldest_waiting_seconds", queue="mail") < 60
    assert 0.04 <= value(families, "callboard_overdue_seconds", queue="mail") < 60
    assert value(families, "callboard_outbox_jobs", queue="mail") == 0, "it was sent, or is delayed"
    assert value(families, "callboard_outbox_jobs", queue="unsent") == 1
    assert value(families, "callboard_queues") == 2


def kept(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "id": "j", "queue": "q", "task": "t", "payload": b"{}", "priority": 5, "created_at": 1_000,
        "state": State.WAITING, "dispatch": 1,
    }  # fmt: skip
    return Job(**(given | changes))


def ended(outcome: str, at: int) -> bytes:
    return encode(Attempt(attempt=1, dispatch=1, worker="w", outcome=outcome, ended_at=at))


@pytest.mark.parametrize(
    ("job", "since"),
    [
        (kept(), 1_000),
        (kept(run_at=5_000), 5_000),
        (kept(run_at=5_000, history=(ended("retried", 7_000),)), 7_000),
        (kept(history=(ended("retried", 7_000),), sent_at=8_000), 7_000),
        (kept(history=(ended("failed", 7_000),), sent_at=90_000), 90_000),  # brought back by hand
        (kept(history=(b'{"of": "a later version"}',)), 1_000),
    ],
)
def test_a_job_waits_since_the_latest_of_what_kept_it(job: Job, since: int) -> None:
    assert could_run_since(job) == since


class SlowStore:
    """Answers after `seconds` of the clock; knows `queues` with a job each."""

    def __init__(self, clock: StillClock, *, seconds: float, queues: Sequence[str]) -> None:
        self.clock = clock
        self.seconds = seconds
        self.known = queues
        self.asked: list[str] = []
        self.looks = 0

    def get(self, capability: type) -> SlowStore:
        assert capability in (Inspection, QueueControl)
        return self

    async def queues(self) -> Sequence[str]:
        self.looks += 1
        self.clock.moment += round(self.seconds * 1000)
        return self.known

    async def counts(self, queues: Sequence[str]) -> Mapping[str, Counts]:
        self.asked += queues
        return dict.fromkeys(queues, Counts())

    async def page(self, queue: str, state: State, **_: object) -> Sequence[object]:
        raise AssertionError("there is no job")


async def test_the_store_spends_at_most_a_twentieth_of_its_time_on_whoever_asks_however_often() -> None:
    clock = StillClock(0)
    store = SlowStore(clock, seconds=2, queues=["a"])
    async with opened() as app:
        gauges = gauges_of(app, store, clock)
        await asyncio.gather(*(gauges.read() for _ in range(50)))
        assert store.looks == 1
        clock.moment += 39_000
        await gauges.read()
        assert store.looks == 1
        clock.moment += 2_000
        await gauges.read()
        assert store.looks == 2
        store.seconds = 3_600
        clock.moment += 41_000
        await gauges.read()
        clock.moment += 61_000  # the longest rest
        await gauges.read()
        assert store.looks == 4


async def test_of_many_queues_those_of_the_app_come_first_and_the_rest_is_only_counted() -> None:
    clock = StillClock(0)
    store = SlowStore(clock, seconds=0, queues=[f"flood-{number:05}" for number in range(5_000)] + ["mine"])
    async with opened() as app:
        families = read(await gauges_of(app, store, clock).read())
    assert len(store.asked) == MOST_QUEUES
    assert store.asked[0] == "mine"
    assert value(families, "callboard_queues") == 5_001


class FickleStore(SlowStore):
    """Is `away`, or answers once it may go `on`."""

    def __init__(self, clock: StillClock) -> None:
        super().__init__(clock, seconds=0, queues=["a"])
        self.away = False
        self.on = asyncio.Event()

    async def queues(self) -> Sequence[str]:
        await self.on.wait()
        if self.away:
            raise StoreUnavailable("memory", "it is away")
        return await super().queues()


async def test_without_its_store_a_process_has_no_gauges_and_no_error() -> None:
    clock = StillClock(0)
    store = FickleStore(clock)
    store.on.set()
    async with opened() as app:
        gauges = gauges_of(app, store, clock)
        assert await asyncio.to_thread(gauges.ask) != ()
        store.away = True
        clock.moment += 10_000
        assert await asyncio.to_thread(gauges.ask) == ()


async def test_a_look_that_takes_long_goes_on_and_who_asks_meanwhile_gets_what_was_seen_before() -> None:
    clock = StillClock(0)
    store = FickleStore(clock)
    async with opened() as app:
        gauges = gauges_of(app, store, clock)
        first = asyncio.create_task(gauges.read())
        assert await asyncio.to_thread(gauges.ask) == ()  # nothing was seen yet, after some seconds
        store.on.set()
        families = read(await first)
        assert value(families, "callboard_queues_age_seconds") == 0
        store.on.clear()
        clock.moment += 30_000
        families = read(await asyncio.to_thread(gauges.ask))
        assert value(families, "callboard_queues_age_seconds") == 30
        await gauges.close()


class OldExporter:
    """As OpenTelemetry's of 1.27, which raises what its connection raises."""

    def __init__(self) -> None:
        self.exports = 0
        self.again = threading.Event()

    def export(self, data: Any) -> None:
        self.exports += 1
        if self.exports == 1:
            raise ConnectionError("the collector is away")  # those of `requests` are OSErrors, too
        self.again.set()

    def shutdown(self) -> None: ...


def test_metrics_are_exported_again_after_a_collector_was_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    exporter = OldExporter()
    otlp = OtlpMetrics(list, service="tests", exporter=exporter)
    otlp.start()
    assert exporter.again.wait(60)
    otlp.stop()
    assert "the collector is away" in caplog.text
