"""B7: the broker raises an alarm and takes no messages any more: its memory, then its disk.

Injects: `rabbitmqctl set_vm_memory_high_watermark`, then `set_disk_free_limit`, under the standard load, while jobs of
a second wait at the broker; each is taken back once those have run. Bites: publishes are blocked (an enqueue that asks
for the broker's confirm is uncertain), and the broker held tickets when the alarm was there.
Passes: no call waits 10 s for its answer: yes by the store, or EnqueueUncertain where the broker's confirm is asked
for; what the broker held is delivered, runs, ends and is acknowledged meanwhile; every accepted job completed after one
run (or one more than its own failures); no handler stopped and no worker declared dead; no process holds 50 MB more
than before; the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import Struct

from callboard import Callboard, EnqueueUncertain
from callboard.metadata.job import State
from faults.door import resident
from faults.fleet import Member
from faults.scene import SETTINGS, Scene, elapsed
from faults.workload import QUEUES
from servers import RabbitMQServer, RedisServer

RATE = 60.0
HELD = 150  # jobs of a second, for 60 slots, that wait while the alarm is being raised
TOGETHER = 10  # of them in a message
CALLERS = 8  # half of them ask for the broker's confirm
PAUSE_SECONDS = 0.25
CONFIRM_SECONDS = float(SETTINGS["CALLBOARD_CONFIRM_TIMEOUT"])
NEVER_SECONDS = 10.0
RESUME_SECONDS = 10.0
MORE_BYTES = 50_000_000
PATIENCE_SECONDS = 60.0

ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "0.0001"), ("set_vm_memory_high_watermark", "0.6")),
    "disk": (("set_disk_free_limit", "99999GB"), ("set_disk_free_limit", "1MB")),
}


class Answer(Struct, frozen=True):
    confirm: bool
    yes: bool
    seconds: float


class Callers:
    """Enqueue one job after the other, until they are told to end."""

    def __init__(self, app: Callboard, name: str) -> None:
        self.ids: list[str] = []
        self.answers: list[Answer] = []
        self._app = app
        self._name = name
        self._over = asyncio.Event()

    async def call(self, lane: int) -> None:
        confirm = lane % 2 == 0
        while not self._over.is_set():
            self.ids.append(f"{self._name}-{len(self.ids)}")
            since = elapsed()
            try:
                await self._app.queue(QUEUES[0]).add("work", [0, False], job_id=self.ids[-1], confirm=confirm)
                yes = True
            except EnqueueUncertain:
                yes = False
            self.answers.append(Answer(confirm, yes, elapsed() - since))
            await asyncio.sleep(PAUSE_SECONDS)

    def end(self) -> None:
        self._over.set()


async def hold(app: Callboard, ids: list[str], name: str) -> None:
    """See to it that HELD jobs of a second wait."""
    queue = app.queue(QUEUES[1])
    for _ in range((await queue.queue_counts()).waiting, HELD, TOGETHER):
        some = [f"{name}-held-{len(ids) + number}" for number in range(TOGETHER)]
        ids += some
        await queue.add_bulk([{"task_id": "work", "args": [1000, False], "job_id": job_id} for job_id in some])


async def drained(scene: Scene, app: Callboard) -> None:
    """Wait until nothing is ready at the broker and nothing runs."""
    names = [scene.names.job_queue(queue) for queue in QUEUES]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            depths = [await app.connections.broker.depth(name) for name in names]
            ready = sum(depth.ready for depth in depths if depth is not None)
            if not ready and not sum(each.active for each in (await scene.counts()).values()):
                return
            await asyncio.sleep(0.2)


async def kept_by(server: RabbitMQServer, scene: Scene) -> int:
    """Messages in the job queues, ready or unacknowledged."""
    listed = await asyncio.to_thread(server.ctl, "list_queues", "--quiet", "--no-table-headers", "name", "messages")
    counts = dict(line.split("\t") for line in listed.splitlines())
    return sum(int(counts[scene.names.job_queue(queue)]) for queue in QUEUES)


def memory(scene: Scene) -> dict[Member, int]:
    return {member: resident(member.pid) for member in scene.fleet}


@pytest.mark.slow
async def test_an_alarm_of_the_broker_makes_nobody_wait_and_stops_no_work(
    tmp_path: Path, seed: int, durable_redis: RedisServer, own_rabbitmq: RabbitMQServer
) -> None:
    store, broker = durable_redis.url, own_rabbitmq.url
    async with (
        Scene(tmp_path, seed=seed, store=store, broker=broker) as scene,
        Callboard(broker=broker, store=store, namespace=scene.namespace, confirm_timeout=CONFIRM_SECONDS) as app,
    ):
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()
        calls: dict[str, Callers] = {}
        ran: dict[str, int] = {}
        waits: list[float] = []
        more = 0
        for alarm, (raised, over) in ALARMS.items():
            calls[alarm] = callers = Callers(app, alarm)
            held: list[str] = []
            await hold(app, held, alarm)
            lanes = [asyncio.create_task(callers.call(lane)) for lane in range(CALLERS)]
            raising = asyncio.create_task(asyncio.to_thread(own_rabbitmq.ctl, *raised))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while app.connections.broker.connected:  # until a publish has met the alarm
                    await hold(app, held, alarm)
                    await asyncio.sleep(PAUSE_SECONDS)
            since, before = elapsed(), memory(scene)
            await raising
            scene.occurrences |= frozenset(held)
            await drained(scene, app)
            # What the broker held has run meanwhile; what was enqueued meanwhile waits in the store.
            during = sorted({entry.run.job for entry in scene.started() if entry.elapsed > since} & {*held})
            assert during, "the broker held none of them when the alarm was there"
            assert {job and job.state for job in await scene.find(QUEUES[1], during)} == {State.COMPLETED}
            async with asyncio.timeout(PATIENCE_SECONDS):  # for the last of them to be acknowledged
                while await kept_by(own_rabbitmq, scene):
                    await asyncio.sleep(PAUSE_SECONDS)
            ran[alarm] = len(during)
            waiting = sum(each.waiting for each in (await scene.counts()).values())
            assert waiting > 0
            more = max(more, *(now - before[member] for member, now in memory(scene).items()))
            await asyncio.to_thread(own_rabbitmq.ctl, *over)
            ended = elapsed()
            callers.end()
            await asyncio.gather(*lanes)
            scene.occurrences |= frozenset(callers.ids)
            await scene.working()
            waits.append(scene.next_start(ended) or float("inf"))

        await scene.settle()
        verdict = await scene.judge()
        answers = [answer for callers in calls.values() for answer in callers.answers]
        slowest = max(answer.seconds for answer in answers)
        uncertain = {name: sum(not answer.yes for answer in callers.answers) for name, callers in calls.items()}
        print(
            f"{ran} jobs ran meanwhile; {len(answers)} calls, uncertain {uncertain}, the slowest took {slowest:.2f} s; "
            f"at most {more / 1e6:.1f} MB more in a process; from the end of an alarm to the next start {waits} s"
        )
        assert min(uncertain.values()) > 0
        assert all(answer.yes for answer in answers if not answer.confirm)
        assert slowest < NEVER_SECONDS
        assert scene.journals("uncertain") == []
        assert verdict.repeated == ()
        # Some were claimed for a slot that did not come free in time, and given back: nobody stopped a handler.
        assert scene.fleet.lines("", "was declared dead|is gone") == []
        assert [job.id for job in (await scene.finals()).values() if job.stalled] == []
        assert more < MORE_BYTES
        assert max(waits) <= RESUME_SECONDS
