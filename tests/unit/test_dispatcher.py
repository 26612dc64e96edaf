"""Order: confirm first, `published` second; what the broker did not take stays in the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from callboard.brokers.errors import BrokerError, BrokerUnavailable
from callboard.brokers.message import Message, Receipt
from callboard.brokers.topology import Names, Topology
from callboard.metadata.contract import Jobs, Ready, Sent
from callboard.metadata.errors import StoreUnavailable
from callboard.runtime.clock import SystemClock
from callboard.runtime.dispatcher import EPOCH_AGAIN_SECONDS, PUBLISHED_DELAY_SECONDS, Dispatcher
from callboard.runtime.wire import Body, Command, Event, decode_bundle, decode_command, decode_events, encode_body


class LaterClock(SystemClock):
    """`later`: seconds that have passed beyond those that have."""

    later = 0.0

    def elapsed(self) -> float:
        return super().elapsed() + self.later


class FakeBroker:
    def __init__(self) -> None:
        self.published: list[Message] = []
        self.declared: list[str] = []
        self.redeclared: list[str] = []
        self.receipts: list[Receipt] = []  # for the next messages; CONFIRMED when used up
        self.away = False
        self.refuses: dict[str, str] = {}  # to declare these queues, with the reason
        self.held: asyncio.Event | None = None
        self.declaring: asyncio.Event | None = None  # a declaration is not answered until it is set

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> list[Receipt]:
        self.published += messages
        if self.held is not None:
            await self.held.wait()
        return [self.receipts.pop(0) if self.receipts else Receipt.CONFIRMED for _ in messages]

    async def declare(self, topology: Topology) -> None:
        if self.away:
            raise BrokerUnavailable("fake", "away")
        if self.declaring is not None:
            await self.declaring.wait()
        self._refuse(topology)
        self.declared += [queue.name for queue in topology.queues]

    def _refuse(self, topology: Topology) -> None:
        for queue in topology.queues:
            if queue.name in self.refuses:
                raise BrokerError(self.refuses[queue.name])

    async def redeclare(self, topology: Topology) -> None:
        self._refuse(topology)
        self.redeclared += [queue.name for queue in topology.queues]


class FakeJobs:
    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.batches: list[int] = []
        self.away = False

    async def published(self, sent: Sequence[Sent], *, now: int) -> None:
        if self.away:
            raise StoreUnavailable("fake", "away")
        self.sent += sent
        self.batches.append(len(sent))


class FakeStore:
    """`lives`: how often it lost its data, of which a reader learns when it asks."""

    def __init__(self) -> None:
        self.jobs = FakeJobs()
        self.lives = 0
        self.epoch = "e0"

    def get(self, capability: type) -> Any:
        assert capability is Jobs
        return self.jobs

    async def read_epoch(self) -> str:
        if self.jobs.away:
            raise StoreUnavailable("fake", "away")
        self.epoch = f"e{self.lives}"
        return self.epoch


class Scene:
    def __init__(self) -> None:
        self.broker, self.store, self.clock = FakeBroker(), FakeStore(), LaterClock()
        self.jobs = self.store.jobs
        broker: Any = self.broker
        store: Any = self.store
        self.dispatcher = Dispatcher(broker=broker, store=store, names=Names("ns"), clock=self.clock, confirm_timeout=5)

    def bundles(self) -> list[tuple[str, int | None, list[tuple[str, int]]]]:
        found = []
        for message in self.broker.published:
            bundle, malformed = decode_bundle(message.body)
            assert malformed == []
            tickets = [(ticket.id, ticket.dispatch) for ticket in bundle.jobs]
            found.append((message.routing_key, message.priority, tickets))
        return found


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    await scene.dispatcher.flush()


def ready(name: str, *, queue: str = "q", dispatch: int = 1, priority: int = 5) -> Ready:
    payload = encode_body(Body(id=name, queue=queue, task="t", created_at=1, priority=priority))
    return Ready(queue, name, dispatch, priority, payload)


async def test_jobs_of_one_tick_queue_and_priority_travel_in_one_bundle(scene: Scene) -> None:
    await asyncio.gather(
        scene.dispatcher.send([ready("a"), ready("b", priority=1)]),
        scene.dispatcher.send([ready("c", dispatch=4), ready("d", queue="other")]),
    )
    assert sorted(scene.bundles()) == [("other", 5, [("d", 1)]), ("q", 5, [("a", 1), ("c", 4)]), ("q", 9, [("b", 1)])]


@pytest.mark.parametrize(("priority", "amqp"), [(1, 9), (5, 5), (10, 0)])
async def test_priorities_from_1_to_10_are_amqps_from_9_to_0(scene: Scene, priority: int, amqp: int) -> None:
    await scene.dispatcher.send([ready("a", priority=priority)])
    assert scene.broker.published[0].priority == amqp
    assert scene.broker.published[0].mandatory
    assert scene.broker.published[0].persistent


async def test_published_is_noted_after_the_confirm_and_not_before(scene: Scene) -> None:
    scene.broker.held = asyncio.Event()
    sending = asyncio.create_task(scene.dispatcher.send([ready("a", dispatch=3)]))
    await asyncio.sleep(2 * PUBLISHED_DELAY_SECONDS)
    assert scene.jobs.sent == []
    scene.broker.held.set()
    assert await sending == [Receipt.CONFIRMED]
    await scene.dispatcher.flush()
    assert scene.jobs.sent == [Sent("q", "a", 3)]


async def test_a_queue_that_cannot_be_declared_is_told_of_once_for_each_reason(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    for reason in ("ACCESS_REFUSED", "ACCESS_REFUSED", "PRECONDITION_FAILED", ""):
        scene.broker.refuses = {"ns.jobs.q": reason} if reason else {}
        await scene.dispatcher.send([ready("a")])
    assert [record.getMessage() for record in caplog.records] == [
        "queue q cannot be declared, its jobs wait in the outbox: ACCESS_REFUSED",
        "queue q cannot be declared, its jobs wait in the outbox: PRECONDITION_FAILED",
    ]


async def test_a_deleted_queue_that_may_not_be_declared_again_keeps_its_jobs_in_the_outbox_and_no_others(
    scene: Scene,
) -> None:
    await scene.dispatcher.send([ready("a"), ready("b", queue="other")])
    scene.broker.refuses = {"ns.jobs.q": "ACCESS_REFUSED"}
    scene.broker.receipts = [Receipt.RETURNED, Receipt.RETURNED]
    sent = await scene.dispatcher.send([ready("c"), ready("d", queue="other")])
    assert sent == [Receipt.RETURNED, Receipt.CONFIRMED]
    assert scene.broker.redeclared == ["ns.jobs.other"]


@pytest.mark.parametrize("receipt", [Receipt.REFUSED, Receipt.UNKNOWN])
async def test_what_the_broker_did_not_take_stays_in_the_outbox(scene: Scene, receipt: Receipt) -> None:
    scene.broker.receipts = [receipt]
    assert await scene.dispatcher.send([ready("a"), ready("b", queue="other")]) == [receipt, Receipt.CONFIRMED]
    await scene.dispatcher.flush()
    assert [sent.id for sent in scene.jobs.sent] == ["b"]


async def test_a_queue_that_was_deleted_is_declared_again_and_the_message_sent_again(scene: Scene) -> None:
    scene.broker.receipts = [Receipt.RETURNED, Receipt.CONFIRMED]
    assert await scene.dispatcher.send([ready("a")]) == [Receipt.CONFIRMED]
    assert scene.broker.redeclared == ["ns.jobs.q"]
    assert scene.bundles() == [("q", 5, [("a", 1)])] * 2


async def test_a_message_that_comes_back_twice_stays_in_the_outbox(scene: Scene) -> None:
    scene.broker.receipts = [Receipt.RETURNED, Receipt.RETURNED]
    assert await scene.dispatcher.send([ready("a")]) == [Receipt.RETURNED]
    await scene.dispatcher.flush()
    assert scene.jobs.sent == []


async def test_a_queue_is_declared_once(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        await scene.dispatcher.send([ready(name)])
    assert scene.broker.declared == ["ns.jobs.q"]


async def test_what_is_sent_while_the_queue_is_being_declared_waits_for_it_and_keeps_its_order(scene: Scene) -> None:
    scene.broker.declaring = asyncio.Event()
    sends = []
    for name in ("a", "b", "c"):
        sends.append(asyncio.create_task(scene.dispatcher.send([ready(name)])))
        for _ in range(5):
            await asyncio.sleep(0)
    assert scene.broker.published == []
    scene.broker.declaring.set()
    assert await asyncio.gather(*sends) == [[Receipt.CONFIRMED]] * 3
    assert [tickets for _, _, tickets in scene.bundles()] == [[("a", 1)], [("b", 1)], [("c", 1)]]
    assert scene.broker.declared == ["ns.jobs.q"]


async def test_without_a_connection_a_send_answers_and_raises_nothing(scene: Scene) -> None:
    scene.broker.away = True
    scene.broker.receipts = [Receipt.UNKNOWN]
    assert await scene.dispatcher.send([ready("a")]) == [Receipt.UNKNOWN]


async def test_a_store_that_is_away_costs_only_copies(scene: Scene) -> None:
    scene.jobs.away = True
    assert await scene.dispatcher.send([ready("a")]) == [Receipt.CONFIRMED]
    await scene.dispatcher.flush()
    assert scene.jobs.sent == []


async def test_many_jobs_are_noted_in_batches_that_a_store_takes(scene: Scene) -> None:
    receipts = await scene.dispatcher.send([ready(str(i)) for i in range(1000)])
    assert receipts == [Receipt.CONFIRMED] * 1000
    await scene.dispatcher.flush()
    assert sorted(int(sent.id) for sent in scene.jobs.sent) == list(range(1000))
    assert max(scene.jobs.batches) <= 128


async def test_flush_waits_for_what_was_sent_without_waiting(scene: Scene) -> None:
    scene.dispatcher.send_soon([ready("a")])
    scene.dispatcher.command_soon("worker.q", Command(command="wake", queue="q"))
    scene.dispatcher.emit(Event(event="completed", job="a", queue="q", task="t", at=1))
    await scene.dispatcher.flush()
    by_exchange = {message.exchange: message for message in scene.broker.published}
    assert set(by_exchange) == {"ns.jobs", "ns.control", "ns.events"}
    assert decode_command(by_exchange["ns.control"].body) == Command(command="wake", queue="q")
    assert scene.jobs.sent == [Sent("q", "a", 1)]


async def test_events_of_one_tick_and_kind_travel_together_and_may_vanish(scene: Scene) -> None:
    for name in ("a", "b"):
        scene.dispatcher.emit(Event(event="completed", job=name, queue="q", task="t", at=1))
    scene.dispatcher.emit(Event(event="failed", job="c", queue="q", task="t", at=1))
    await scene.dispatcher.flush()
    told = {m.routing_key: [event.job for event in decode_events(m.body)] for m in scene.broker.published}
    assert told == {"q.completed": ["a", "b"], "q.failed": ["c"]}
    assert not any(message.mandatory or message.persistent for message in scene.broker.published)


async def test_a_single_send_makes_a_message_of_its_own(scene: Scene) -> None:
    assert await scene.dispatcher.send_single(ready("a", dispatch=2)) is True
    scene.broker.receipts = [Receipt.UNKNOWN]
    assert await scene.dispatcher.send_single(ready("b")) is False
    assert scene.bundles() == [("q", 5, [("a", 2)]), ("q", 5, [("b", 1)])]


async def test_a_single_send_may_be_as_old_as_the_ticket_whose_place_it_takes(scene: Scene) -> None:
    await scene.dispatcher.send_single(ready("a"), at=17, epoch="before")
    bundle, _ = decode_bundle(scene.broker.published[0].body)
    assert (bundle.at, bundle.epoch) == (17, "before")


async def test_a_copy_is_no_younger_than_the_ticket_that_it_copies_and_is_not_noted_as_sent(scene: Scene) -> None:
    scene.dispatcher.send_copy_soon(ready("a", dispatch=2), sent_at=12345)
    await scene.dispatcher.flush()
    assert scene.bundles() == [("q", 5, [("a", 2)])]
    assert decode_bundle(scene.broker.published[0].body)[0].at == 12345
    assert scene.jobs.sent == []


async def test_what_is_sent_while_it_is_recorded_is_noted_once_it_is_recorded(scene: Scene) -> None:
    sending, recorded = scene.dispatcher.start([ready("a")])
    await sending
    await scene.dispatcher.send([ready("b")])
    await asyncio.sleep(2 * PUBLISHED_DELAY_SECONDS)
    assert [sent.id for sent in scene.jobs.sent] == ["b"]
    recorded()
    async with asyncio.timeout(60):
        while len(scene.jobs.sent) < 2:
            await asyncio.sleep(0.01)
    assert [sent.id for sent in scene.jobs.sent] == ["b", "a"]


async def test_a_store_that_lost_its_data_is_noticed_in_a_minute_by_whoever_sends(scene: Scene) -> None:
    scene.store.lives = 1
    await scene.dispatcher.send([ready("a")])
    scene.clock.later = EPOCH_AGAIN_SECONDS
    scene.jobs.away = True
    await scene.dispatcher.send([ready("b")])
    scene.clock.later = 2 * EPOCH_AGAIN_SECONDS
    scene.jobs.away = False
    await scene.dispatcher.send([ready("c")])
    await scene.dispatcher.flush()
    await scene.dispatcher.send([ready("d")])
    assert [decode_bundle(message.body)[0].epoch for message in scene.broker.published] == ["e0", "e0", "e0", "e1"]


@pytest.mark.parametrize(
    ("receipt", "has_it"), [(Receipt.CONFIRMED, True), (Receipt.RETURNED, False), (Receipt.UNKNOWN, False)]
)
async def test_a_spare_ticket_stays_in_the_brokers_memory_and_is_not_noted(
    scene: Scene, receipt: Receipt, has_it: bool
) -> None:
    scene.broker.receipts = [receipt]
    assert await scene.dispatcher.send_spare(ready("a", priority=2)) is has_it
    (message,) = scene.broker.published
    assert (message.persistent, message.mandatory, scene.bundles()) == (False, True, [("q", 8, [("a", 1)])])
    await scene.dispatcher.flush()
    assert (scene.broker.declared, scene.jobs.sent) == (["ns.jobs.q"], [])


async def test_a_store_that_lost_its_data_is_noticed_by_who_sends_spare_tickets_alone(scene: Scene) -> None:
    scene.store.lives = 1
    await scene.dispatcher.send_spare(ready("a"))
    scene.clock.later = EPOCH_AGAIN_SECONDS
    await scene.dispatcher.send_spare(ready("b"))
    await scene.dispatcher.flush()
    await scene.dispatcher.send_spare(ready("c"))
    assert [decode_bundle(message.body)[0].epoch for message in scene.broker.published] == ["e0", "e0", "e1"]


async def test_a_spare_ticket_that_nobody_waits_for_any_more_is_on_its_way_before_all_is_closed(scene: Scene) -> None:
    scene.broker.held = asyncio.Event()
    sending = scene.dispatcher.send_spare(ready("a"))
    await asyncio.sleep(0)
    flushing = asyncio.create_task(scene.dispatcher.flush())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not flushing.done()
    scene.broker.held.set()
    await flushing
    assert sending.done()
