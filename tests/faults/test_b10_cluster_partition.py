"""B10: each node of a RabbitMQ of three, with quorum queues, is cut off from the two others, and comes back.

Injects, under the standard load through a balancer, one node after the other: its packets to and from the other nodes
are dropped, while clients still reach it, and it pauses once it sees that it is alone; or its cable is pulled, so that
its clients' connections say nothing any more. Each for as long as it takes the others to see it, and some seconds.
Bites: both others say that it is down; where clients reach it, it no longer answers them; every node had connections of
the fleet when it was cut off, and led a queue of jobs at some time; processes lost connections.
Passes: handlers start while the node is away, and jobs are accepted; it comes back by itself; every enqueue is answered
with yes, every accepted job is completed and none runs twice but for its own failures; nobody is declared dead, no
process ends and no actor is started again; the audit is clean, the queues are empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.network import NoNetwork
from faults.rabbit_cluster import Balancer, Node, RabbitCluster
from faults.scene import CONNECTION_LOST, SETTINGS, Scene, elapsed
from lacking import do_without
from servers import ProgramMissing, RedisServer

RATE = 60.0
HEARTBEAT_SECONDS = 5  # of AMQP
AWAY_SECONDS = 5.0  # that a node stays away after the others have seen it
SEEN_SECONDS = 30.0
BACK_SECONDS = 120.0
Cut = Callable[[RabbitCluster, Node], None]
QUORUM = {**SETTINGS, "CALLBOARD_QUEUE_TYPE": "quorum"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RabbitCluster]:
    try:
        with RabbitCluster(tmp_path / "rabbitmq") as cluster:
            yield cluster
    except (NoNetwork, ProgramMissing) as missing:
        do_without(f"no network can be cut here: {missing}.", in_ci="In CI tests run as root.")


def drop(cluster: RabbitCluster, node: Node) -> None:
    node.host.drop(other.host for other in cluster.others(node))


def unplug(_: RabbitCluster, node: Node) -> None:
    node.host.unplug()


async def cut_off(scene: Scene, cluster: RabbitCluster, balancer: Balancer, node: Node, cut: Cut) -> None:
    """Until both others have seen it, and some seconds; returns when it is back and handlers start."""
    others = cluster.others(node)
    before, connected, since = [other.downs(node) for other in others], balancer.connections_to(node), elapsed()
    await asyncio.to_thread(cut, cluster, node)
    await scene.until(
        lambda: all(other.downs(node) > count for other, count in zip(others, before, strict=True)),
        f"the others see that {node.name} is gone",
        SEEN_SECONDS,
    )
    seen = elapsed()
    await scene.working()
    resumed = scene.next_start(seen) or float("inf")
    await asyncio.sleep(AWAY_SECONDS)
    answered = await asyncio.to_thread(node.answers)
    await asyncio.to_thread(node.host.heal)
    healed = elapsed()
    async with asyncio.timeout(BACK_SECONDS):
        while not await asyncio.to_thread(node.answers):
            await asyncio.sleep(0.5)
    accepted = sum(seen < line.value < healed for line in scene.journals("accepted"))
    print(
        f"{cut.__name__} {node.name}, with {connected} connections: seen after {seen - since:.1f} s, the next start "
        f"{resumed:.1f} s later; {accepted} jobs accepted; back {elapsed() - healed:.1f} s after {healed - since:.1f} s"
    )
    assert connected > 0
    assert not answered
    assert accepted > 0
    await scene.note_finals()
    await scene.working()


@pytest.mark.soak
@pytest.mark.parametrize("cut", [drop, unplug])
async def test_each_node_of_a_cluster_is_cut_off_in_turn_and_no_job_is_lost_or_runs_twice(
    tmp_path: Path, seed: int, durable_redis: RedisServer, cluster: RabbitCluster, cut: Cut
) -> None:
    async with Balancer(cluster.nodes) as balancer:
        async with asyncio.timeout(BACK_SECONDS):
            while not await asyncio.to_thread(cluster.running):
                await asyncio.sleep(0.5)
        url = f"amqp://guest:guest@127.0.0.1:{balancer.port}/?heartbeat={HEARTBEAT_SECONDS}"
        async with Scene(
            tmp_path, seed=seed, store=durable_redis.url, broker=url, settings=QUORUM, settle_seconds=120
        ) as scene:
            scene.start_actors()
            scene.start_producers(rate=RATE)
            await scene.up()
            led: set[str] = set()
            for node in cluster.nodes:
                led |= {*(await asyncio.to_thread(cluster.leaders)).values()}
                await cut_off(scene, cluster, balancer, node, cut)
            lost = scene.fleet.lines("", "The connection .* was lost")
            await scene.settle()
            verdict = await scene.judge(CONNECTION_LOST)
            print(f"{len(lost)} connections lost; queues were led by {sorted(led)}")
            assert lost != []
            assert len(led) > 1
            assert scene.journals("uncertain") == []
            assert verdict.repeated == ()
            await scene.assert_nobody_was_given_up()
            assert [member.name for member in scene.fleet if member.lives > 1] == []
            assert scene.fleet.lines("", "starting it again") == []
