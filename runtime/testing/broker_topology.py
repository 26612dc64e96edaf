"""What a broker promises of its connection, of declarations and of routing."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ...brokers.contract import Depth
from ...brokers.errors import BrokerError, BrokerUnavailable, TopologyMismatch
from ...brokers.message import Receipt
from ...brokers.topology import Binding, Exchange, Queue, Topology
from .broker_stage import Inbox, OnStage, Stage, acknowledge, eventually


@pytest.mark.asyncio
class Topologies(OnStage):
    # Connection

    async def test_is_disconnected_until_it_is_opened_and_again_after_it_was_closed(self) -> None:
        broker = await self.make_broker()
        seen: list[bool] = []
        broker.watch(seen.append)
        assert not broker.connected
        await broker.open()
        assert broker.connected
        await broker.close()
        assert not broker.connected
        assert seen == [True, False]

    async def test_knows_the_servers_version_once_connected(self, stage: Stage) -> None:
        assert stage.broker.version

    async def test_tells_each_change_of_its_connection(self, stage: Stage) -> None:
        seen: list[bool] = []
        stage.broker.watch(seen.append)
        await self.cut_and_mend(stage)
        assert seen[0] is False
        assert seen[-1] is True
        assert all(before != after for before, after in pairwise(seen))

    async def test_is_shared_between_objects_or_says_that_it_is_not(self, stage: Stage) -> None:
        await stage.confirmed(b"1")
        other = await self.make_broker()
        await other.open()
        assert (await other.depth(stage.queue) is not None) == other.shared
        await other.close()

    async def test_gives_back_what_is_unacknowledged_when_it_is_closed(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1", b"2", b"3")
        deliveries = await inbox.take(3)
        deliveries[0].ack()
        await stage.broker.close()
        assert not consumer.active
        assert deliveries[1].lost
        await stage.broker.open()
        await eventually(stage.ready, 2)

    # Topology

    async def test_declaring_the_same_again_changes_nothing(self, stage: Stage) -> None:
        await stage.confirmed(b"1")
        await stage.broker.declare(stage.topology)
        await stage.broker.redeclare(stage.topology)
        await eventually(stage.ready, 1)

    async def test_an_exchange_of_another_type_is_a_mismatch_that_names_both_types(self, stage: Stage) -> None:
        with pytest.raises(TopologyMismatch, match=r"topic.*direct|direct.*topic"):
            await stage.broker.declare(Topology(exchanges=(Exchange(stage.topic.name, "direct"),)))

    async def test_a_queue_with_other_arguments_is_a_mismatch_that_names_both_values(self, stage: Stage) -> None:
        name = stage.name("priorities")
        await stage.broker.declare(Topology(queues=(Queue(name, arguments=(("x-max-priority", 3),)),)))
        with pytest.raises(TopologyMismatch, match=r"7.*3|3.*7"):
            await stage.broker.declare(Topology(queues=(Queue(name, arguments=(("x-max-priority", 7),)),)))

    async def test_goes_on_after_a_mismatch(self, stage: Stage) -> None:
        with pytest.raises(TopologyMismatch):
            await stage.broker.declare(Topology(exchanges=(Exchange(stage.topic.name, "direct"),)))
        later = stage.name("later")
        await stage.broker.declare(Topology(queues=(Queue(later),)))
        assert await stage.broker.depth(later) == Depth(ready=0, consumers=0)
        await self.cut_and_mend(stage)
        await stage.confirmed(b"1")

    async def test_a_binding_to_nothing_is_an_error_but_not_an_unavailable_broker(self, stage: Stage) -> None:
        with pytest.raises(BrokerError) as raised:
            await stage.broker.declare(Topology(bindings=(Binding(stage.queue, f"{stage.prefix}.missing", "key"),)))
        assert not isinstance(raised.value, BrokerUnavailable)

    async def test_what_is_declared_without_a_connection_is_declared_with_the_next_one(self, stage: Stage) -> None:
        later = stage.name("later")
        await self.cut(stage.broker)
        await stage.wait_connected(False)
        with pytest.raises(BrokerUnavailable):
            await stage.broker.declare(Topology(queues=(Queue(later),)))
        await self.mend(stage.broker)
        await stage.wait_connected(True)
        assert await stage.broker.depth(later) == Depth(ready=0, consumers=0)

    async def test_redeclare_mends_what_somebody_deleted(self, stage: Stage) -> None:
        await stage.broker.delete(stage.queue)
        assert list(await stage.publish(stage.message())) == [Receipt.RETURNED]
        await stage.broker.redeclare(stage.topology)
        await stage.confirmed(b"1")

    async def test_declare_after_delete_declares(self, stage: Stage) -> None:
        await stage.broker.delete(stage.queue)
        await stage.broker.declare(stage.topology)
        await stage.confirmed(b"1")

    async def test_an_exclusive_queue_goes_with_the_connection_and_comes_back_empty(self, stage: Stage) -> None:
        name = stage.name("mailbox")
        await stage.broker.declare(
            Topology(queues=(Queue(name, exclusive=True),), bindings=(Binding(name, stage.direct.name, "mail"),))
        )
        await stage.confirmed(b"before", routing_key="mail")
        await self.cut_and_mend(stage)
        inbox = Inbox(acknowledge)
        await stage.broker.consume(name, inbox, prefetch=1)
        await stage.confirmed(b"after", routing_key="mail")
        await inbox.take(1)
        assert inbox.bodies() == [b"after"]

    # Routing

    @pytest.mark.parametrize(
        ("pattern", "routing_key", "reached"),
        [
            ("all", "all", True),
            ("all", "all.more", False),
            ("#", "a.b.c", True),
            ("#", "a", True),
            ("a.#", "a", True),
            ("a.#", "a.b.c", True),
            ("a.#", "b.a", False),
            ("#.c", "a.b.c", True),
            ("a.#.c", "a.c", True),
            ("a.#.c", "a.b.b.c", True),
            ("a.*", "a.b", True),
            ("a.*", "a", False),
            ("a.*", "a.b.c", False),
            ("*.b", "a.b", True),
            ("*.#", "a", True),
        ],
    )
    async def test_a_topic_exchange_matches_words(
        self, stage: Stage, pattern: str, routing_key: str, reached: bool
    ) -> None:
        await stage.broker.declare(Topology(bindings=(Binding(stage.queue, stage.topic.name, pattern),)))
        receipts = await stage.publish(stage.message(exchange=stage.topic.name, routing_key=routing_key))
        assert list(receipts) == [Receipt.CONFIRMED if reached else Receipt.RETURNED]

    async def test_a_direct_exchange_takes_the_routing_key_literally(self, stage: Stage) -> None:
        await stage.broker.declare(Topology(bindings=(Binding(stage.queue, stage.direct.name, "a.*"),)))
        receipts = await stage.publish(stage.message(routing_key="a.b"), stage.message(routing_key="a.*"))
        assert list(receipts) == [Receipt.RETURNED, Receipt.CONFIRMED]

    async def test_the_default_exchange_reaches_a_queue_by_its_name(self, stage: Stage) -> None:
        await stage.confirmed(b"1", exchange="", routing_key=stage.queue)
        await eventually(stage.ready, 1)

    async def test_a_queue_bound_twice_gets_a_message_once(self, stage: Stage) -> None:
        bindings = tuple(Binding(stage.queue, stage.topic.name, pattern) for pattern in ("a.*", "#.b"))
        await stage.broker.declare(Topology(bindings=bindings))
        await stage.confirmed(b"1", exchange=stage.topic.name, routing_key="a.b")
        await stage.confirmed(b"2", exchange=stage.topic.name, routing_key="b")
        await eventually(stage.ready, 2)

    async def test_each_bound_queue_gets_a_message(self, stage: Stage) -> None:
        other = stage.name("other")
        await stage.broker.declare(
            Topology(queues=(Queue(other),), bindings=(Binding(other, stage.direct.name, "key"),))
        )
        first, second = Inbox(acknowledge), Inbox(acknowledge)
        await stage.consume(first)
        await stage.broker.consume(other, second, prefetch=1)
        await stage.confirmed(b"1")
        assert (await first.take(1))[0].body == (await second.take(1))[0].body == b"1"
