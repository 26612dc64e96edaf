"""What a fault test stands on: a fleet at work on the standard load, and what can be told about it afterwards.

    async with Scene(tmp_path, seed=seed, store=redis.url, broker=rabbitmq.url) as scene:
        scene.start_actors()
        scene.start_producers(rate=200)
        ...                                     # the faults
        await scene.settle()                    # producers end, everything becomes final, the fleet ends in order
        verdict = await scene.judge()

The scene looks at store and broker past the fleet, by connections of its own; while one of them is away it waits.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self
from uuid import uuid4

from aio_pika import connect

from callboard.brokers.contract import Depth
from callboard.brokers.topology import Names
from callboard.metadata.contract import Counts, Inspection, Passing, Store, WorkerRow, Workers
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import Job, State
from callboard.runtime.job_view import view
from callboard.runtime.registry import make_broker, make_store
from callboard.runtime.worker_info import Info, decode_info
from faults import ledger
from faults.checker import Evidence, Kill, Pause, Verdict, check
from faults.fleet import CONNECTED, ENDED, FAST, SERVES, Deployed, Fleet, Member, actor
from faults.producer import Line, read_journal
from faults.workload import APP, QUEUES
from mongo_space import MongoSpace
from redis_space import RedisSpace

FINAL = [state for state in State if state.final]
WORKERS = 3
ACTORS = WORKERS + 2 + 2 + 1  # scanners, recoveries, retention
UP_SECONDS = 60.0
SETTLE_SECONDS = 25.0
LOOK_SECONDS = 0.1
PAGE = 1000
NOTED = 100  # final records of a queue that are remembered at a time

# A boot of this load that is not dead never loses a job; a job killed three times in a row shall not fail for it.
SETTINGS = {
    **FAST,
    "CALLBOARD_MAX_STALLED": "20",
    "CALLBOARD_CONFIRM_TIMEOUT": "2",
    "CALLBOARD_KEEP_COMPLETED_SECONDS": "3600",
    "CALLBOARD_KEEP_FAILED_SECONDS": "3600",
}

# aiormq, which a producer without settings for logging lets talk, prints how a connection of its own ended.
CONNECTION_LOST = r"aiormq/connection\.py"

_REFUSED = re.compile(r"refused the end of job (\S+), dispatch (\d+) by")


BrokerOf = Callable[[str], str | None]


class Scene:
    """`shares_...`: that server serves others too; leave nothing there."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        store: str,
        broker: str,
        shares_store: bool = False,
        shares_broker: bool = False,
        settings: Mapping[str, str] = SETTINGS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.seed = seed
        self.settle_seconds = settle_seconds
        self.random = Random(seed)
        self.namespace = f"faults-{uuid4().hex[:12]}"
        self.names = Names(self.namespace)
        self.kills: list[Kill] = []
        self.pauses: list[Pause] = []
        self.occurrences: frozenset[str] = frozenset()  # ids of jobs that schedules, or others, have to make
        self.not_before: Mapping[str, int] = {}  # ms before which a job must not start, beside those of the journals
        self.ledger = folder / "ledger"
        self._folder = folder
        self._shares_store = shares_store
        self._shares_broker = shares_broker
        self._store_url = store
        self._broker_url = broker
        self._store: Store = make_store(store, namespace=self.namespace)
        self._opened = False
        self._first_finals: dict[str, Job] = {}
        self.fleet = Fleet(
            folder / "logs",
            Deployed(namespace=self.namespace, store=store, broker=broker, settings=settings),
            FAULTS_LEDGER=str(self.ledger),
        )

    # --- the fleet ---

    def start_actors(self, *, broker_of: BrokerOf = lambda name: None) -> None:
        """The workers, two of each actor that shares its work with replicas. `broker_of` a member's name: the URL by
        which it reaches the broker, None for the scene's own."""
        for number in range(1, WORKERS + 1):
            self._start(f"worker-{number}", actor("worker", app=APP, queues=QUEUES), broker_of)
        for kind in ("delayed-scanner", "stalled-recovery"):
            for number in (1, 2):
                self._start(f"{kind}-{number}", actor(kind, app=APP), broker_of)
        self._start("retention", actor("retention", app=APP), broker_of)

    def start_producers(
        self,
        *,
        rate: float,
        limit: int = 0,
        submitted: float = 0,
        broker_of: BrokerOf = lambda name: None,
        environment: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Two, with `rate` and `limit` together; without `limit` they go on until `settle`. `submitted`: the part of
        their jobs that they hand to intake. `environment`: of each, by its name."""
        for name in ("producer-1", "producer-2"):
            arguments = ["-m", "faults.producer", "--name", name, "--seed", str(self.seed), "--rate", str(rate / 2)]
            arguments += ["--limit", str(limit // 2), "--submitted", str(submitted)]
            arguments += ["--journal", str(self._journal(name))]
            self._start(name, arguments, broker_of, **(environment or {}).get(name, {}))

    def _start(self, name: str, arguments: Sequence[str], broker_of: BrokerOf, **environment: str) -> None:
        if (broker := broker_of(name)) is not None:
            environment["CALLBOARD_BROKER"] = broker
        self.fleet.start(name, arguments, **environment)

    @property
    def producers(self) -> list[Member]:
        return self.fleet.named("producer-")

    @property
    def workers(self) -> list[Member]:
        return self.fleet.named("worker-")

    async def held(self, process: int) -> int:
        """How many jobs are active in the store under a worker of that process, dead or alive."""
        return sum(row.active for row, info in await self._rows() if info.pid == process)

    async def copies_refused(self) -> int:
        """How many copies of tickets the workers have refused, as they told with their last heartbeats."""
        told = {info.pid: info.copies_refused for _, info in await self._rows()}
        return sum(told.values())

    async def _rows(self) -> list[tuple[WorkerRow, Info]]:
        await self._inspection()
        rows = await self._store.get(Workers).workers(QUEUES)
        return [(row, decode_info(row.info)) for row in rows if row.info]

    @property
    def _actors(self) -> list[Member]:
        return [member for member in self.fleet if member not in self.producers]

    def kill(self, member: Member) -> Kill:
        member.kill()
        kill = Kill(process=member.pid, elapsed=elapsed())
        self.kills.append(kill)
        return kill

    async def up(self) -> None:
        """Wait until every actor has reached its servers, every worker serves, and work is under way."""
        await self.until(self._connected, "all actors are connected", UP_SECONDS)
        await self.until(lambda: all(m.said(SERVES) for m in self.workers), "all workers serve", UP_SECONDS)
        await self.working()

    def _connected(self) -> bool:
        assert not (ended := [member.name for member in self.fleet if not member.running]), f"ended at once: {ended}"
        return all(member.said(CONNECTED) for member in self._actors)

    async def working(self, *, starts: int = 30) -> None:
        """Wait until so many handlers have started since now."""
        wanted = len(self.started()) + starts
        await self.until(lambda: len(self.started()) >= wanted, f"{starts} handlers have started", UP_SECONDS)

    async def a_worker_at_work(self) -> Member:
        """One of the workers that serve, chosen at random."""
        await self.until(lambda: any(worker.said(SERVES) for worker in self.workers), "a worker serves", 10)
        return self.random.choice([worker for worker in self.workers if worker.said(SERVES)])

    async def until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(LOOK_SECONDS / 2)

    async def settle(self) -> None:
        """`drain`, then `stop`."""
        await self.drain()
        await self.stop()

    async def drain(self) -> None:
        """Let the producers end, and wait until every job is final and every worker serves."""
        await asyncio.to_thread(self._stop_producers)
        await self._drained()
        # A process that is told to stop while it starts would not end in order.
        await self.until(lambda: all(m.said(SERVES) for m in self.workers), "all workers serve", UP_SECONDS)

    async def stop(self) -> None:
        """End the fleet in order."""
        took = await asyncio.to_thread(self.fleet.stop)
        print(f"the fleet took {took:.1f} s to stop")

    async def all_recorded(self) -> None:
        """Let the producers end, and wait until each job of theirs and each occurrence is recorded: intake and
        schedulers may be behind."""
        await asyncio.to_thread(self._stop_producers)
        wanted = len(self.journals("submitted")) + len(self.occurrences)
        deadline = time.monotonic() + self.settle_seconds
        while (there := sum(recorded(each) for each in (await self.counts()).values())) < wanted:
            assert time.monotonic() < deadline, f"{there} of {wanted} jobs recorded after {self.settle_seconds:g} s"
            await asyncio.sleep(LOOK_SECONDS)

    def _stop_producers(self) -> None:
        for producer in self.producers:
            producer.stop()

    async def _drained(self) -> None:
        deadline = time.monotonic() + self.settle_seconds
        while open_jobs := unfinished(counts := await self.counts()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{open_jobs} jobs are not final after {self.settle_seconds:g} s: {counts}")
            await asyncio.sleep(LOOK_SECONDS)

    # --- what the handlers and producers wrote ---

    def entries(self) -> list[ledger.Entry]:
        return ledger.read(self.ledger)

    def started(self) -> list[ledger.Entry]:
        return [entry for entry in ledger.read(self.ledger) if entry.event is ledger.Event.START]

    def running(self, *, process: int | None = None, at: float = float("inf")) -> list[ledger.Entry]:
        """Starts of the runs that had not ended at that moment, of one process or of all."""
        under_way: dict[ledger.Run, ledger.Entry] = {}
        for entry in ledger.read(self.ledger):
            if entry.elapsed > at:
                continue
            if entry.event is ledger.Event.START:
                under_way[entry.run] = entry
            else:
                under_way.pop(entry.run, None)
        return [start for start in under_way.values() if process is None or start.run.process == process]

    async def a_long_run(self) -> None:
        """Wait until a handler is in the middle of its run, and far from its end."""
        await self.until(
            lambda: any(0.1 < elapsed() - s.elapsed < 0.6 for s in self.running()), "a long run", UP_SECONDS
        )

    def next_start(self, moment: float) -> float | None:
        """Seconds from that moment to the next start of any handler."""
        return min((entry.elapsed - moment for entry in self.started() if entry.elapsed > moment), default=None)

    def journals(self, word: str) -> list[Line]:
        return [line for p in self.producers for line in read_journal(self._journal(p.name)) if line.word == word]

    def unanswered(self) -> set[str]:
        """The jobs that producers have begun to enqueue and that are not accepted yet."""
        submitted = {line.job for line in self.journals("submitted")}  # before the answers
        return submitted - {line.job for line in self.journals("accepted")}

    def _journal(self, name: str) -> Path:
        return self._folder / f"{name}.journal"

    # --- what store and broker say ---

    async def counts(self) -> Mapping[str, Counts]:
        while True:
            try:
                return await (await self._inspection()).counts(QUEUES)
            except StoreUnavailable:
                await asyncio.sleep(LOOK_SECONDS)

    async def find(self, queue: str, ids: Sequence[str]) -> list[Job | None]:
        """The records of these ids, in order."""
        inspection = await self._inspection()
        found: list[Job | None] = []
        for start in range(0, len(ids), PAGE):
            found += await inspection.get(queue, ids[start : start + PAGE])
        return found

    async def audit(self) -> list[str]:
        """Without what a process that was killed may leave for a while."""
        inspection = await self._inspection()
        faults = [(queue, fault) for queue in QUEUES for fault in await inspection.audit(queue)]
        return [f"{queue}: {fault}" for queue, fault in faults if not isinstance(fault, Passing)]

    async def finals(self) -> dict[str, Job]:
        """Every final record there is."""
        found: dict[str, Job] = {}
        for queue in QUEUES:
            for state in FINAL:
                offset = 0
                while page := await self._page(queue, state, offset, PAGE):
                    found |= {job.id: job for job in page}
                    offset += len(page)
        return found

    async def note_finals(self) -> None:
        """Remember the newest final records, to be compared with those at the end. Nothing while the store is away."""
        try:
            for queue in QUEUES:
                for job in await self._page(queue, State.COMPLETED, 0, NOTED):
                    self._first_finals.setdefault(job.id, job)
        except StoreUnavailable:
            return

    async def _page(self, queue: str, state: State, offset: int, limit: int) -> Sequence[Job]:
        inspection = await self._inspection()
        return await inspection.page(queue, state, offset=offset, limit=limit, newest_first=True)

    async def depths(self) -> dict[str, Depth | None]:
        """The job queues at the broker, by name, with everything that is ready there."""
        broker = make_broker(self._broker_url, name="the test")
        await broker.open()
        try:
            return {queue: await broker.depth(self.names.job_queue(queue)) for queue in QUEUES}
        finally:
            await broker.close()

    async def _inspection(self) -> Inspection:
        if not self._opened:
            await self._store.open()
            self._opened = True
        return self._store.get(Inspection)

    # --- the verdict ---

    async def judge(self, *allowed: str) -> Verdict:
        """Asserts what holds after every fault test, and prints one line; the caller asserts what is its own.
        Tracebacks in which one of the regular expressions `allowed` is found are no fault."""
        finals = await self.finals()
        changed = [id for id, job in self._first_finals.items() if finals.get(id) != job]
        due = {line.job: int(line.value) for line in self.journals("submitted")}
        verdict = check(
            Evidence(
                submitted=frozenset(due) | self.occurrences,
                accepted=frozenset(line.job for line in self.journals("accepted")) | self.occurrences,
                finals={id: str(job.state) for id, job in finals.items()},
                ledger=self.entries(),
                due={**due, **self.not_before},
                kills=self.kills,
                pauses=self.pauses,
                refused=frozenset(self.refused()),
                leases_lost=leases_lost(finals.values()),
            )
        )
        print(f"{verdict} | final changed {len(changed)}, seen final before the end {len(self._first_finals)}")
        assert verdict.sound, describe(verdict)
        assert verdict.accepted == len(due) + len(self.occurrences), (
            "a producer that was stopped in order left a job behind"
        )
        assert not changed, [(self._first_finals[id], finals.get(id)) for id in changed[:3]]
        assert {job.state for job in finals.values()} == {State.COMPLETED}
        assert await self.audit() == []
        assert await self.depths() == {queue: Depth(ready=0, consumers=0) for queue in QUEUES}
        assert not (complaints := self.fleet.complaints(*allowed)), "\n".join(complaints[:3])
        assert not (unruly := [m.name for m in self._actors if not m.said(ENDED)]), unruly
        return verdict

    async def assert_nobody_was_given_up(self) -> None:
        """No lease ran out and no handler was stopped: each job had one run, or as many as it had failures and one."""
        # But for what tells of a machine that stands still, which on a busy one happens, and costs no lease by itself.
        assert self.fleet.lines("worker", r"^(?!.*callboard\.watch:).*(declared dead|\blease)") == []
        assert self.fleet.lines("stalled-recovery", "is gone") == []
        stopped = [job for job in (await self.finals()).values() if job.stalled or job.attempts != job.failures + 1]
        assert stopped == [], stopped[:3]

    def refused(self) -> list[tuple[str, int]]:
        """Ends of runs that the store refused, told by the workers' logs."""
        return [(m[1], int(m[2])) for worker in self.workers for m in _REFUSED.finditer(worker.output())]

    # --- the end ---

    async def __aenter__(self) -> Self:
        print(f"seed {self.seed} (FAULTS_SEED), namespace {self.namespace}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.fleet.close)
        if kind is not None:
            print(self.fleet.tails())
        await self._store.close()
        if self._shares_store:
            space = (MongoSpace if self._store_url.startswith("mongodb") else RedisSpace)(self._store_url)
            space.namespace = self.namespace
            await space.delete()
        if self._shares_broker:
            await self._clear_broker()

    async def _clear_broker(self) -> None:
        async with await connect(self._broker_url) as connection:
            channel = await connection.channel()
            for queue in [*map(self.names.job_queue, QUEUES), self.names.dead, self.names.intake]:
                await channel.queue_delete(queue)
            for exchange in self.names.exchanges().exchanges:
                await channel.exchange_delete(exchange.name)


def elapsed() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def leases_lost(jobs: Iterable[Job]) -> frozenset[tuple[str, str]]:
    """Each job with each boot that lost it, by the records' own histories."""
    stalled = [job for job in jobs if job.stalled]
    return frozenset((job.id, run.worker) for job in stalled for run in view(job).history if run.outcome == "stalled")


def unfinished(counts: Mapping[str, Counts]) -> int:
    return sum(each.waiting + each.delayed + each.waiting_children + each.active for each in counts.values())


def recorded(counts: Counts) -> int:
    """How many jobs of a queue there are, final ones among them."""
    return unfinished({"": counts}) + counts.completed + counts.failed + counts.cancelled + counts.expired


def describe(verdict: Verdict) -> str:
    faults: dict[str, Sequence[object]] = {
        "lost": verdict.lost,
        "unexplained": verdict.unexplained,
        "phantom": verdict.phantom,
        "early": verdict.early,
    }
    return "; ".join(f"{name}: {_first(found)}" for name, found in faults.items() if found)


def _first(found: Iterable[object]) -> list[object]:
    return list(found)[:5]
