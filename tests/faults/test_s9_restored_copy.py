"""S9: the store is restored from a copy that is some seconds old.

Injects: the store's files are copied in the midst of the standard load and of a schedule's occurrences; five leases
later, in which a worker was killed and started again, the server is killed while the broker holds a backlog, and
started on the copy. Bites: the store knows fewer jobs than before; jobs have run twice, or have no record though they
ran; the broker held tickets of jobs that the copy does not know; handlers were running.
Passes: each accepted job has a final record, or has run to its end, or was accepted since the copy and one of which no
ticket spoke (delayed by its producer, or until its retry); of the backlog each that had not begun is completed;
each occurrence is; repeats are of what was forgotten; each run of a job has a higher fence than the one before it;
nothing is put aside, the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.brokers.contract import Depth
from callboard.metadata.job import State
from faults.checker import Evidence, Forgotten, check
from faults.fleet import CONNECTED, LEASE_SECONDS, SERVES, actor
from faults.ledger import Entry, Event
from faults.occurrences import every_second
from faults.scene import Scene, describe, elapsed, leases_lost, recorded
from faults.workload import APP, QUEUES
from servers import MongoServer, RedisServer

RATE = 100.0
AGE_SECONDS = 5 * LEASE_SECONDS
BACKLOG = 600
BACKLOG_MILLISECONDS = 300  # longer than one worker's slots take to work it off while the server is killed
OCCURRENCES = 30
PATIENCE_SECONDS = 120.0

Server = RedisServer | MongoServer


class Copy:
    """Of what a server keeps, at one moment."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._data = folder / ("redis/appendonlydir" if isinstance(server, RedisServer) else "mongodb/data")
        self._copy = folder / "copy"

    def take(self) -> None:
        """As a snapshot of a file system would: nothing is written meanwhile."""
        self._server.pause()
        try:
            shutil.copytree(self._data, self._copy)
        finally:
            self._server.cont()

    def restore(self) -> None:
        """SIGKILL, then another life with what was kept then."""
        self._server.kill()
        shutil.rmtree(self._data)
        shutil.copytree(self._copy, self._data)
        self._server.start()


@pytest.mark.soak
async def test_a_store_that_is_restored_from_an_old_copy_loses_no_job_that_a_ticket_speaks_of(
    tmp_path: Path, seed: int, durable_store: Server, amqp_url: str
) -> None:
    async with (
        Scene(
            tmp_path,
            seed=seed,
            store=durable_store.url,
            broker=amqp_url,
            shares_broker=True,
            settle_seconds=PATIENCE_SECONDS,
        ) as scene,
        Callboard(broker=amqp_url, store=durable_store.url, namespace=scene.namespace) as app,
    ):
        scene.start_actors()
        scheduler = scene.fleet.start("repeatable-scheduler", actor("repeatable-scheduler", app=APP))
        scene.start_producers(rate=RATE)
        await scene.up()
        await scene.until(lambda: scheduler.said(CONNECTED), "the scheduler works", PATIENCE_SECONDS)
        start = datetime.now(UTC).replace(microsecond=0)
        scene.occurrences = await every_second(app.queue(QUEUES[0]), "tick", start=start, times=OCCURRENCES)
        await scene.working()

        copy = Copy(durable_store, tmp_path)
        copied = elapsed()
        await asyncio.to_thread(copy.take)
        await scene.a_long_run()
        killed = await scene.a_worker_at_work()
        await asyncio.to_thread(scene.kill, killed)
        killed.start()
        await scene.until(lambda: killed.said(SERVES), "the killed worker serves again", PATIENCE_SECONDS)
        await asyncio.sleep(max(0.0, copied + AGE_SECONDS - elapsed()))

        backlog = [f"backlog-{number}" for number in range(BACKLOG)]
        await app.queue(QUEUES[1]).add_bulk(
            [{"task_id": "work", "args": [BACKLOG_MILLISECONDS, False], "job_id": job} for job in backlog]
        )
        held, known = await scene.depths(), await scene.counts()
        running = scene.running()
        await asyncio.to_thread(copy.restore)
        restored = elapsed()
        await scene.working()
        remembered = await scene.counts()
        last = max(scene.occurrences)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await scene.find(QUEUES[0], [last]))[0] is None:
                await asyncio.sleep(0.2)
        await scene.settle()

        lapse = Forgotten(since=copied, until=restored + 1)
        finals, ledger = await scene.finals(), scene.entries()
        due = {line.job: int(line.value) for line in scene.journals("submitted")}
        accepted = {line.job: line.value for line in scene.journals("accepted")} | dict.fromkeys(backlog, copied)
        over = {entry.run.job for entry in ledger if entry.event is Event.END}
        failed = {entry.run.job for entry in ledger if entry.event is Event.FAILED}
        gone = accepted.keys() - finals.keys()
        unsent = {job for job in gone - over if due.get(job) or job in failed}
        verdict = check(
            Evidence(
                submitted=frozenset(due) | scene.occurrences | set(backlog),
                accepted=frozenset(accepted.keys() - unsent - (gone & over)) | scene.occurrences,
                finals={job: str(record.state) for job, record in finals.items()},
                ledger=ledger,
                due=due,
                kills=scene.kills,
                refused=frozenset(scene.refused()),
                leases_lost=leases_lost(finals.values()),
                forgotten=[lapse],
            )
        )
        begun = {entry.run.job for entry in ledger if entry.elapsed < restored}
        waiting = set(backlog) - begun
        print(
            f"{verdict} | {restored - copied:.1f} s forgotten; {sum(map(recorded, known.values()))} records before, "
            f"{sum(map(recorded, remembered.values()))} soon after; forgotten with their ends {len(gone & over)}, "
            f"unsent ones forgotten {len(unsent)}; of the backlog {len(waiting)} had not begun, of those "
            f"{len(waiting & gone)} have no record; at the broker {held}"
        )
        stopped = {entry.run.job for entry in ledger if entry.event is Event.STOPPED}
        print(f"interrupted {len(stopped)}, of those without a record {len(stopped & gone)}")
        assert verdict.sound, describe(verdict)
        assert all(lapse.since <= accepted[job] <= lapse.until for job in unsent), "the copy knew them"
        assert falling_fences(ledger) == []
        assert waiting <= over
        assert {job.state for job in finals.values()} == {State.COMPLETED}
        assert await scene.audit() == []
        assert await scene.depths() == {queue: Depth(ready=0, consumers=0) for queue in QUEUES}
        assert (await app.connections.broker.depth(scene.names.dead)) == Depth(ready=0, consumers=0)
        assert not (complaints := scene.fleet.complaints()), "\n".join(complaints[:3])

        assert running, "no handler was running when the store was killed"
        assert verdict.repeated, "nothing ran twice"
        assert gone, "nothing was forgotten"
        assert len(waiting) > BACKLOG / 4, "the backlog had begun when the store was killed"


def falling_fences(ledger: list[Entry]) -> list[tuple[Entry, Entry]]:
    """Starts of a job whose fence is not higher than that of the start before it."""
    jobs: dict[str, list[Entry]] = {}
    for entry in ledger:
        if entry.event is Event.START:
            jobs.setdefault(entry.run.job, []).append(entry)
    pairs = [pair for starts in jobs.values() for pair in pairwise(starts)]
    return [(before, after) for before, after in pairs if after.run.fence <= before.run.fence]
