"""What a broker promises of receipts, and of what arrives of a message."""

from __future__ import annotations

import asyncio

import pytest

from ...brokers.message import Receipt
from ...brokers.topology import Queue, Topology
from .broker_stage import Inbox, OnStage, Stage, acknowledge, eventually


@pytest.mark.asyncio
class Publishing(OnStage):
    # Publishing

    async def test_receipts_are_in_the_order_of_the_messages(self, stage: Stage) -> None:
        keys = ["key", "nowhere", "key", "nowhere", "nowhere", "key"]
        receipts = await stage.publish(*(stage.message(routing_key=key) for key in keys))
        assert list(receipts) == [Receipt.CONFIRMED if key == "key" else Receipt.RETURNED for key in keys]

    async def test_publishing_nothing_gives_nothing(self, stage: Stage) -> None:
        assert list(await stage.publish()) == []

    async def test_what_is_not_mandatory_vanishes_with_a_confirm(self, stage: Stage) -> None:
        assert list(await stage.publish(stage.message(routing_key="nowhere", mandatory=False))) == [Receipt.CONFIRMED]

    async def test_a_message_to_a_missing_exchange_is_returned_and_publishing_goes_on(self, stage: Stage) -> None:
        receipts = await stage.publish(stage.message(exchange=f"{stage.prefix}.missing"))
        assert list(receipts) == [Receipt.RETURNED]
        await stage.confirmed(b"1")

    async def test_several_publishers_at_once_each_get_their_own_receipts(self, stage: Stage) -> None:
        async def publish(key: str, receipt: Receipt) -> None:
            for _ in range(5):
                receipts = await stage.publish(*(stage.message(routing_key=key) for _ in range(100)))
                assert list(receipts) == [receipt] * 100

        await asyncio.gather(
            publish("key", Receipt.CONFIRMED), publish("nowhere", Receipt.RETURNED), publish("key", Receipt.CONFIRMED)
        )
        await eventually(stage.ready, 1000)

    async def test_without_a_connection_everything_is_unknown_at_once(self, stage: Stage) -> None:
        await self.cut(stage.broker)
        await stage.wait_connected(False)
        async with asyncio.timeout(1):
            receipts = await stage.broker.publish([stage.message(), stage.message()], timeout=60)
        assert list(receipts) == [Receipt.UNKNOWN] * 2

    async def test_losing_the_connection_raises_nothing_and_what_was_confirmed_is_there(self, stage: Stage) -> None:
        publishes = [
            asyncio.create_task(stage.publish(*(stage.message(b"%d" % number) for _ in range(100))))
            for number in range(20)
        ]
        await asyncio.wait(publishes, return_when=asyncio.FIRST_COMPLETED)
        await self.cut(stage.broker)
        receipts = [receipt for publish in publishes for receipt in await publish]
        assert set(receipts) <= {Receipt.CONFIRMED, Receipt.UNKNOWN}
        await self.mend(stage.broker)
        await stage.wait_connected(True)
        inbox = Inbox(acknowledge)
        await stage.consume(inbox, prefetch=100)
        await inbox.take(receipts.count(Receipt.CONFIRMED))

    async def test_cancelling_a_publish_leaves_the_broker_in_order(self, stage: Stage) -> None:
        publishes = [asyncio.create_task(stage.publish(*(stage.message() for _ in range(500))))]
        await asyncio.sleep(0)
        publishes[0].cancel()
        await asyncio.wait(publishes)
        await stage.confirmed(b"1", b"2")

    # Messages

    async def test_a_message_arrives_with_all_its_properties(self, stage: Stage) -> None:
        inbox = Inbox(acknowledge)
        await stage.consume(inbox)
        headers = {"text": "ä", "number": 7, "big": 2**40, "flag": True, "nothing": None, "list": [1, "a"]}
        message = stage.message(
            b"\x00\xff", headers=headers, correlation_id="c-1", reply_to="r-1", content_type="text/plain", priority=3
        )
        await stage.publish(message)
        delivery = (await inbox.take(1))[0]
        assert delivery.body == b"\x00\xff"
        assert (delivery.exchange, delivery.routing_key) == (stage.direct.name, "key")
        assert delivery.headers == headers
        assert (delivery.correlation_id, delivery.reply_to) == ("c-1", "r-1")
        assert (delivery.content_type, delivery.content_encoding) == ("text/plain", None)
        assert not delivery.redelivered
        assert not delivery.lost

    async def test_a_message_without_options_arrives_as_json_without_headers(self, stage: Stage) -> None:
        inbox = Inbox(acknowledge)
        await stage.consume(inbox)
        await stage.confirmed(b"{}")
        delivery = (await inbox.take(1))[0]
        assert (delivery.content_type, delivery.headers) == ("application/json", {})
        assert (delivery.correlation_id, delivery.reply_to) == (None, None)

    @pytest.mark.parametrize("size", [0, 1, 4096, 131_064, 131_065, 1_000_000])
    async def test_bodies_of_any_size_arrive_whole(self, stage: Stage, size: int) -> None:
        body = bytes(index % 251 for index in range(size))
        inbox = Inbox(acknowledge)
        await stage.consume(inbox)
        await stage.confirmed(body)
        assert (await inbox.take(1))[0].body == body

    async def test_each_publish_has_a_message_id_of_its_own(self, stage: Stage) -> None:
        inbox = Inbox(acknowledge)
        await stage.consume(inbox)
        message = stage.message()
        await stage.publish(message, message)
        await stage.publish(message)
        assert len({delivery.message_id for delivery in await inbox.take(3)}) == 3

    async def test_higher_priorities_come_first_and_equal_ones_in_order(self, stage: Stage) -> None:
        name = stage.name("priorities")
        await stage.broker.declare(Topology(queues=(Queue(name, arguments=(("x-max-priority", 9),)),)))
        for body, priority in ((b"low", 0), (b"high", 9), (b"middle", 5), (b"high too", 9), (b"none", None)):
            await stage.confirmed(body, exchange="", routing_key=name, priority=priority)
        inbox = Inbox(acknowledge)
        await stage.broker.consume(name, inbox, prefetch=1)
        await inbox.take(5)
        assert inbox.bodies() == [b"high", b"high too", b"middle", b"low", b"none"]

    async def test_a_queue_without_priorities_keeps_the_order(self, stage: Stage) -> None:
        for number in range(20):
            await stage.confirmed(b"%d" % number, priority=number % 3)
        inbox = Inbox(acknowledge)
        await stage.consume(inbox, prefetch=5)
        await inbox.take(20)
        assert inbox.bodies() == [b"%d" % number for number in range(20)]

    async def test_an_expired_message_is_not_delivered(self, stage: Stage) -> None:
        await stage.confirmed(b"short", expiration=1)
        await stage.confirmed(b"long", expiration=600_000)
        await eventually(stage.ready, 1)
        inbox = Inbox(acknowledge)
        await stage.consume(inbox)
        await inbox.take(1)
        assert inbox.bodies() == [b"long"]
