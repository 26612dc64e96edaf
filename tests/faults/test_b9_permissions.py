"""B9: the broker refuses the user of the whole deployment for some 10 s, and takes it back.

Injects, each under the standard load, with every connection closed by the broker so that all processes meet it: no
permissions (530); permissions for nothing (connections are accepted, and what is done with them is refused: 403);
another password (403 at the login); no virtual host (530), with all that its queues held. Then what was there before
is given back. Bites: every actor lost both connections and was told that reason; handlers ran and queues held tickets
when it began; jobs were accepted meanwhile; with the virtual host, tickets had to be sent again.
Passes: both connections of a process are tried with pauses of up to 5 s (full jitter, so 2.5 s on the average, after
six quick tries), which bounds how often the broker is asked (where it accepts connections and refuses publishes, each
is tried; how many were refused is printed); a process says of each connection and queue once what is wrong with it,
however often it tries; no process ends and no actor is started again; handlers start within 20 s of the end; every
enqueue is answered with yes; every accepted job is completed after one run (or one more than its own failures); no
worker is declared dead, the audit is clean, the queues are empty.

The same where the deployment starts while its user may declare no queue of jobs and read none of submissions. Bites:
every worker and the intake said so, of each queue, and no handler started. Passes: they said it once, serve by
themselves within 20 s of the permission, and no process ended and no actor was started again.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard import Callboard
from faults.fleet import SERVES, Member, actor
from faults.scene import ACTORS, CONNECTION_LOST, UP_SECONDS, Scene, elapsed
from faults.workload import APP, QUEUES
from servers import RabbitMQServer, RedisServer

HOST, USER, PASSWORD = "jobs", "callboard", "first"
ALL, NOTHING = (".*", ".*", ".*"), ("^$", "^$", "^$")
RATE = 60.0
HELD = 600  # jobs of a second, for 60 slots
TOGETHER = 10  # of them in a message
FAULT_SECONDS = 10.0
RESUME_SECONDS = 20.0
CONNECTIONS = 2 * (ACTORS + 2)  # with the producers'
QUICK_TRIES, SECONDS_A_TRY = 8, 2.0  # of a connection; somewhat more than on the average
MOST_LINES = 40  # of a process that has both connections and, as a worker does, five queues

# For all that there is, but to declare a queue of jobs, and to read one of submissions.
NO_QUEUES = (r"^(?!.*\.jobs\.).*$", ".*", r"^(?!.*\.intake$).*$")

Commands = tuple[tuple[str, ...], ...]
CLOSE = ("close_all_connections", "--vhost", HOST, "by the operator")
GRANT = ("set_permissions", "--vhost", HOST, USER, *ALL)

# What is done, what takes it back, and what the processes are told.
FAULTS: dict[str, tuple[Commands, Commands, str]] = {
    "cleared": ((("clear_permissions", "--vhost", HOST, USER), CLOSE), (GRANT,), "530 NOT_ALLOWED"),
    "forbidden": (
        (("set_permissions", "--vhost", HOST, USER, *NOTHING), CLOSE),
        (GRANT,),
        "ACCESS_REFUSED - access to",
    ),
    "password": (
        (("change_password", USER, "second"), CLOSE),
        (("change_password", USER, PASSWORD),),
        "it refuses the credentials",
    ),
    "virtual-host": ((("delete_vhost", HOST),), (("add_vhost", HOST), GRANT), "530 NOT_ALLOWED"),
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RabbitMQServer]:
    """One that logs each connection, with a user and a virtual host for the deployment."""
    told = {"log__connection__level": "info", "log__console__level": "info"}
    with RabbitMQServer(tmp_path / "rabbitmq", **told) as server:
        server.ctl("add_user", USER, PASSWORD)
        server.ctl("add_vhost", HOST)
        server.ctl(*GRANT)
        yield server


def asked(server: RabbitMQServer) -> Counter[str]:
    """How often the broker was asked for a connection, and refused to let a channel do something."""
    log = server.log.read_text("utf-8", "replace")
    return Counter(connections=log.count("accepting AMQP connection"), refusals=log.count("access_refused: access to"))


def complaints(member: Member) -> Counter[str]:
    """What it said was wrong, but for jobs that failed as planned, with how often it did."""
    found = re.findall(r"^\S+ (?:WARNING|ERROR|CRITICAL) \d+ (.*)$", member.output(), re.MULTILINE)
    return Counter(line for line in found if "callboard.worker: task " not in line)


async def hold(app: Callboard) -> frozenset[str]:
    ids = [f"held-{number}" for number in range(HELD)]
    for start in range(0, HELD, TOGETHER):
        some = ids[start : start + TOGETHER]
        await app.queue(QUEUES[1]).add_bulk([{"task_id": "work", "args": [1000, False], "job_id": one} for one in some])
    return frozenset(ids)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_deployment_that_its_broker_refuses_waits_for_it_quietly_and_loses_no_job(
    tmp_path: Path, seed: int, durable_redis: RedisServer, broker: RabbitMQServer, fault: str
) -> None:
    url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{broker.port}/{HOST}"
    inject, undo, reason = FAULTS[fault]
    async with Scene(tmp_path, seed=seed, store=durable_redis.url, broker=url, settle_seconds=120) as scene:
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()
        async with Callboard(broker=url, store=durable_redis.url, namespace=scene.namespace) as app:
            scene.occurrences |= await hold(app)
        await scene.note_finals()
        held = sum(depth.ready for depth in (await scene.depths()).values() if depth)
        before = {member.name: complaints(member) for member in scene.fleet}
        asked_before = asked(broker)
        since = elapsed()
        running = len(scene.running())
        for command in inject:
            await asyncio.to_thread(broker.ctl, *command)
        injected = elapsed()
        await asyncio.sleep(FAULT_SECONDS)
        over = elapsed()
        for command in undo:
            await asyncio.to_thread(broker.ctl, *command)
        ended = elapsed()
        tries = asked(broker) - asked_before
        await scene.working()
        resumed = scene.next_start(ended) or float("inf")
        assert [member.name for member in scene.fleet if not member.running or member.lives > 1] == []
        await scene.settle()
        verdict = await scene.judge(CONNECTION_LOST)

        said = {member.name: complaints(member) - before[member.name] for member in scene.fleet}
        accepted = sum(injected < line.value < over for line in scene.journals("accepted"))
        resent = scene.fleet.lines("stalled-recovery", "lost by the broker; sent again")
        print(
            f"{fault} for {ended - since:.1f} s, {running} handlers ran and {held} messages waited; {dict(tries)} of "
            f"{CONNECTIONS} connections; lines { ({name: sum(lines.values()) for name, lines in said.items()}) }; "
            f"{accepted} jobs accepted meanwhile; {resumed:.1f} s from the end to the next start; {len(resent)} resent"
        )
        print("\n".join(said["worker-1"]))
        actors = [lines for name, lines in said.items() if not name.startswith("producer")]
        assert running > 0
        assert held > 0
        assert accepted > 0
        for lines in actors:
            assert {kind for kind in ("consuming", "publishing") if any(f"({kind}) to" in line for line in lines)} == {
                "consuming",
                "publishing",
            }
            assert any(reason in line for line in lines), lines
        if fault == "virtual-host":
            assert resent
        assert tries["connections"] < CONNECTIONS * (QUICK_TRIES + (ended - since) / SECONDS_A_TRY)
        assert max(max(lines.values()) for lines in actors) <= 2, actors  # one for each connection
        assert max(sum(lines.values()) for lines in actors) <= MOST_LINES, actors
        assert scene.fleet.lines("", "starting it again") == []
        assert resumed <= RESUME_SECONDS
        assert scene.journals("uncertain") == []
        assert verdict.repeated == ()
        # Some were claimed for a slot that did not come free in time, and given back: nobody stopped a handler.
        assert scene.fleet.lines("", "was declared dead|is gone") == []
        assert [job.id for job in (await scene.finals()).values() if job.stalled] == []


@pytest.mark.soak
async def test_a_deployment_that_starts_while_its_queues_are_refused_waits_for_them(
    tmp_path: Path, seed: int, durable_redis: RedisServer, broker: RabbitMQServer
) -> None:
    url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{broker.port}/{HOST}"
    await asyncio.to_thread(broker.ctl, "set_permissions", "--vhost", HOST, USER, *NO_QUEUES)
    async with Scene(tmp_path, seed=seed, store=durable_redis.url, broker=url, settle_seconds=120) as scene:
        scene.start_actors()
        intake = scene.fleet.start("intake", actor("intake", app=APP))
        waiting = [*scene.workers, intake]
        scene.start_producers(rate=RATE)
        await scene.until(
            lambda: all("broker permits it: ACCESS_REFUSED" in m.output() for m in waiting), "all wait", UP_SECONDS
        )
        await asyncio.sleep(FAULT_SECONDS)
        assert scene.started() == []
        assert [worker.name for worker in scene.workers if worker.said(SERVES)] == []
        accepted = len(scene.journals("accepted"))
        await asyncio.to_thread(broker.ctl, *GRANT)
        permitted = elapsed()
        await scene.up()
        await scene.until(lambda: intake.said("takes in"), "the intake works", UP_SECONDS)
        resumed = scene.next_start(permitted) or float("inf")
        assert [member.name for member in scene.fleet if not member.running or member.lives > 1] == []
        await scene.settle()
        verdict = await scene.judge(CONNECTION_LOST)

        print(f"{accepted} jobs accepted meanwhile; {resumed:.1f} s from the permission to the first start")
        print("\n".join(complaints(scene.workers[0])))
        assert accepted > 0
        for worker in scene.workers:
            for queue in QUEUES:
                (said,) = [line for line in complaints(worker).elements() if f"queue {queue} is not consumed" in line]
                assert "rabbitmqctl set_permissions" in said
        (said,) = [line for line in complaints(intake).elements() if "nothing is taken in" in line]
        assert resumed <= RESUME_SECONDS
        assert scene.fleet.lines("", "starting it again") == []
        assert verdict.repeated == ()
