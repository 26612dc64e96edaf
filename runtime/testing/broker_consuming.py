"""What a broker promises of deliveries, of settling them, and of the life of a consumer."""

from __future__ import annotations

import asyncio

import pytest

from ...brokers.contract import BODY_KEPT, Depth
from ...brokers.errors import BrokerError, BrokerUnavailable
from ...brokers.message import Delivery
from .broker_stage import Inbox, OnStage, Stage, acknowledge, eventually


@pytest.mark.asyncio
class Consuming(OnStage):
    # Consuming and settling

    async def test_no_more_than_prefetch_are_unsettled(self, stage: Stage) -> None:
        inbox = Inbox()
        await stage.consume(inbox, prefetch=3)
        await stage.confirmed(*(b"%d" % number for number in range(10)))
        deliveries = await inbox.take(3)
        await eventually(stage.ready, 7)
        assert len(deliveries) == 3
        deliveries[1].ack()
        await inbox.take(4)
        await eventually(stage.ready, 6)
        assert len(deliveries) == 4

    async def test_two_consumers_share_a_queue(self, stage: Stage) -> None:
        first, second = Inbox(), Inbox()
        await stage.consume(first, prefetch=5)
        await stage.consume(second, prefetch=5)
        await stage.confirmed(*(b"%d" % number for number in range(10)))
        await first.take(5)
        await second.take(5)
        assert sorted(first.bodies() + second.bodies()) == [b"%d" % number for number in range(10)]

    async def test_what_is_acknowledged_is_gone_in_whatever_order(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox, prefetch=100)
        await stage.confirmed(*(b"%d" % number for number in range(100)))
        deliveries = await inbox.take(100)
        for delivery in [*deliveries[1::3], *deliveries[90:50:-1], *deliveries[::4]]:
            delivery.ack()
        await asyncio.sleep(0)
        for delivery in deliveries[2:30]:
            delivery.ack()
        acknowledged = {*range(1, 100, 3), *range(51, 91), *range(0, 100, 4), *range(2, 30)}
        await consumer.cancel()
        await eventually(stage.ready, 100 - len(acknowledged))
        again = Inbox(acknowledge)
        await stage.consume(again, prefetch=100)
        await again.take(100 - len(acknowledged))
        assert {int(body) for body in again.bodies()} == set(range(100)) - acknowledged

    async def test_of_a_body_over_the_limit_only_the_beginning_is_held_and_its_size_is_told(self, stage: Stage) -> None:
        inbox = Inbox(acknowledge)
        await stage.consume(inbox, body_limit=100_000)
        huge = bytes(range(256)) * 1200
        await stage.confirmed(b"x" * 100_000, huge, b"last")
        at_the_limit, over_it, last = await inbox.take(3)
        assert (at_the_limit.size, len(at_the_limit.body)) == (100_000, 100_000)
        assert (over_it.size, over_it.body) == (len(huge), huge[:BODY_KEPT])
        assert (last.size, last.body) == (4, b"last")

    async def test_what_is_requeued_comes_again_and_says_so(self, stage: Stage) -> None:
        inbox = Inbox()
        await stage.consume(inbox)
        await stage.confirmed(b"1")
        (await inbox.take(1))[0].requeue()
        again = (await inbox.take(2))[1]
        assert (again.body, again.redelivered) == (b"1", True)

    async def test_what_is_rejected_does_not_come_again(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1", b"2")
        deliveries = await inbox.take(2)
        deliveries[0].reject()
        deliveries[1].ack()
        await consumer.cancel()
        await eventually(stage.ready, 0)

    async def test_settling_twice_does_nothing_more(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1", b"2")
        first, second = await inbox.take(2)
        for settle in (first.ack, first.ack, first.requeue, first.reject, second.requeue, second.ack):
            settle()
        assert (await inbox.take(3))[2].body == b"2"
        assert consumer.active

    async def test_a_receiver_that_raises_stops_nothing(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        def stumble(delivery: Delivery) -> None:
            if not delivery.redelivered:
                raise RuntimeError("the receiver stumbles")
            delivery.ack()

        inbox = Inbox(stumble)
        await stage.consume(inbox, prefetch=1)
        await stage.confirmed(b"1", b"2")
        await inbox.take(4)
        assert sorted(inbox.bodies()) == [b"1", b"1", b"2", b"2"]
        assert "the receiver stumbles" in caplog.text

    async def test_depth_counts_what_is_ready_and_who_consumes(self, stage: Stage) -> None:
        await stage.confirmed(b"1", b"2", b"3")
        await eventually(lambda: stage.broker.depth(stage.queue), Depth(ready=3, consumers=0))
        inbox = Inbox()
        await stage.consume(inbox, prefetch=2)
        await inbox.take(2)
        await eventually(lambda: stage.broker.depth(stage.queue), Depth(ready=1, consumers=1))

    async def test_a_missing_queue_has_no_depth_and_can_be_purged_and_deleted(self, stage: Stage) -> None:
        missing = f"{stage.prefix}.missing"
        assert await stage.broker.depth(missing) is None
        await stage.broker.purge(missing)
        await stage.broker.delete(missing)
        assert await stage.broker.depth(missing) is None

    async def test_purge_leaves_what_is_delivered(self, stage: Stage) -> None:
        inbox = Inbox()
        await stage.consume(inbox, prefetch=1)
        await stage.confirmed(b"1", b"2", b"3")
        delivery = (await inbox.take(1))[0]
        await stage.broker.purge(stage.queue)
        await eventually(stage.ready, 0)
        delivery.requeue()
        assert (await inbox.take(2))[1].body == b"1"

    async def test_questions_need_a_connection(self, stage: Stage) -> None:
        await self.cut(stage.broker)
        await stage.wait_connected(False)
        with pytest.raises(BrokerUnavailable):
            await stage.broker.depth(stage.queue)
        with pytest.raises(BrokerUnavailable):
            await stage.broker.purge(stage.queue)
        with pytest.raises(BrokerUnavailable):
            await stage.broker.delete(stage.queue)
        with pytest.raises(BrokerUnavailable):
            await stage.consume(Inbox())

    async def test_a_missing_queue_cannot_be_consumed(self, stage: Stage) -> None:
        with pytest.raises(BrokerError):
            await stage.broker.consume(f"{stage.prefix}.missing", Inbox(), prefetch=1)

    async def test_an_exclusive_consumer_is_alone(self, stage: Stage) -> None:
        await stage.broker.consume(stage.queue, Inbox(), prefetch=1, exclusive=True)
        with pytest.raises(BrokerError):
            await stage.consume(Inbox())

    # The life of a consumer

    async def test_a_cancelled_consumer_gets_nothing_more(self, stage: Stage) -> None:
        inbox = Inbox(acknowledge)
        consumer = await stage.consume(inbox)
        assert consumer.active
        await consumer.cancel()
        await consumer.cancel()
        assert not consumer.active
        await stage.confirmed(b"1")
        await eventually(lambda: stage.broker.depth(stage.queue), Depth(ready=1, consumers=0))
        assert inbox.received == []

    async def test_cancelling_gives_back_what_is_unsettled_as_lost(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1", b"2")
        first, second = await inbox.take(2)
        first.ack()
        await consumer.cancel()
        assert second.lost
        second.ack()
        await eventually(stage.ready, 1)

    async def test_cancelling_without_requeue_leaves_the_settling_to_the_receiver(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1", b"2", b"3")
        first, second, third = await inbox.take(3)
        await consumer.cancel(requeue=False)
        assert not consumer.active
        assert not first.lost
        await stage.confirmed(b"4")
        first.ack()
        second.ack()
        third.requeue()
        await eventually(lambda: stage.broker.depth(stage.queue), Depth(ready=2, consumers=0))
        assert inbox.bodies() == [b"1", b"2", b"3"]

    async def test_a_lost_connection_brings_everything_unsettled_again(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1", b"2")
        before = list(await inbox.take(2))
        await self.cut(stage.broker)
        await stage.wait_connected(False)
        assert not consumer.active
        assert all(delivery.lost for delivery in before)
        await self.mend(stage.broker)
        after = (await inbox.take(4))[2:]
        assert sorted(delivery.body for delivery in after) == [b"1", b"2"]
        assert all(delivery.redelivered and not delivery.lost for delivery in after)
        await stage.wait_connected(True)
        assert consumer.active

    async def test_settling_a_lost_delivery_does_nothing(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1", b"2", b"3")
        stale = list(await inbox.take(3))
        await self.cut_and_mend(stage)
        fresh = (await inbox.take(6))[3:]
        stale[0].ack()
        stale[1].requeue()
        stale[2].reject()
        await stage.confirmed(b"4")
        await inbox.take(7)
        assert consumer.active
        assert not any(delivery.lost for delivery in fresh)
        await consumer.cancel()
        await eventually(stage.ready, 4)

    async def test_a_cancelled_consumer_does_not_come_back_with_the_connection(self, stage: Stage) -> None:
        consumer = await stage.consume(Inbox())
        await consumer.cancel()
        await self.cut_and_mend(stage)
        assert await stage.broker.depth(stage.queue) == Depth(ready=0, consumers=0)

    async def test_a_consumer_survives_many_connections(self, stage: Stage) -> None:
        inbox = Inbox(acknowledge)
        consumer = await stage.consume(inbox)
        for number in range(3):
            await self.cut_and_mend(stage)
            await stage.confirmed(b"%d" % number)
            await inbox.take(number + 1)
        assert consumer.active
        assert await stage.broker.depth(stage.queue) == Depth(ready=0, consumers=1)

    async def test_a_consumer_comes_back_after_its_queue_was_deleted(self, stage: Stage) -> None:
        inbox = Inbox()
        consumer = await stage.consume(inbox)
        await stage.confirmed(b"1")
        delivery = (await inbox.take(1))[0]
        await stage.broker.delete(stage.queue)
        await eventually(lambda: stage.broker.depth(stage.queue), Depth(ready=0, consumers=1))
        assert delivery.lost
        delivery.ack()
        await stage.confirmed(b"2")
        assert (await inbox.take(2))[1].body == b"2"
        assert consumer.active
