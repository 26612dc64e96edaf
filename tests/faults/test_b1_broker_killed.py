"""B1: the broker is killed and comes back.

Injects: SIGKILL of RabbitMQ's Erlang machine, started again up to a lease later (and it needs seconds to boot), three
times, under the standard load on a store that is durable. Bites: an outage counts if handlers ran when it began; each
has to.
Passes: every accepted job completed after one run (or one more than its own failures), so nothing was repeated and no
handler stopped; every enqueue is answered with yes, also during the outages; handlers start again within 10 s of the
moment when the port is open; every actor consumes again from its queues; the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callboard.brokers.topology import Names
from faults.fleet import LEASE_SECONDS
from faults.scene import ACTORS, CONNECTION_LOST, WORKERS, Scene, elapsed
from faults.workload import QUEUES
from servers import RabbitMQServer, RedisServer

OUTAGES = 3
RATE = 120.0
RESUME_SECONDS = 10.0


@pytest.mark.slow
async def test_a_broker_that_dies_and_comes_back_costs_nothing_but_time(
    tmp_path: Path, seed: int, durable_redis: RedisServer, own_rabbitmq: RabbitMQServer
) -> None:
    async with Scene(tmp_path, seed=seed, store=durable_redis.url, broker=own_rabbitmq.url) as scene:
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()

        outages: list[tuple[float, float]] = []
        for _ in range(OUTAGES):
            await scene.note_finals()
            await scene.a_long_run()
            killed = elapsed()
            await asyncio.to_thread(own_rabbitmq.kill)
            assert scene.running(at=killed), "no handler was running when the broker died"
            await asyncio.sleep(scene.random.uniform(0, LEASE_SECONDS))
            await asyncio.to_thread(own_rabbitmq.start)
            outages.append((killed, elapsed()))
            await scene.working()

        while missing := await asyncio.to_thread(without_consumers, own_rabbitmq, scene.names):
            assert elapsed() - outages[-1][1] < RESUME_SECONDS, missing
        await scene.settle()
        verdict = await scene.judge(CONNECTION_LOST)

        accepted = [line.value for line in scene.journals("accepted")]
        meanwhile = [sum(begin < moment < end for moment in accepted) for begin, end in outages]
        waits = [scene.next_start(end) or float("inf") for _, end in outages]
        lengths = ", ".join(f"{end - begin:.1f} s" for begin, end in outages)
        print(f"outages of {lengths}; jobs accepted meanwhile {meanwhile}; ", end="")
        print(f"open port to next start {min(waits):.2f} to {max(waits):.2f} s")
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
        assert scene.journals("uncertain") == []
        assert min(meanwhile) > 0
        assert max(waits) <= RESUME_SECONDS


def without_consumers(server: RabbitMQServer, names: Names) -> list[str]:
    """Job queues that not all workers consume, and how many actors do not consume their mailbox."""
    listed = server.ctl("list_queues", "--quiet", "--no-table-headers", "name", "consumers")
    consumers = {name: int(count) for name, count in (line.split("\t") for line in listed.splitlines())}
    missing = [queue for queue in map(names.job_queue, QUEUES) if consumers[queue] < WORKERS]
    mailboxes = sum(count for name, count in consumers.items() if name.startswith(names.mailbox("")))
    return [*missing, f"{ACTORS - mailboxes} mailboxes"] if mailboxes != ACTORS else missing
