"""When a job is sent: once it is recorded, or at the same time where nothing can be lost or doubled by that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import structs

from callboard.brokers.message import Receipt
from callboard.metadata.contract import Admission, Delays, Enqueued, Inspection, Jobs, QueueControl, Ready
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import Deduplication, NewJob, State
from callboard.runtime.clock import SystemClock
from callboard.runtime.errors import EnqueueUncertain
from callboard.runtime.producer import AT_ONCE, Producer
from callboard.runtime.registry import make_store
from callboard.runtime.settings import Settings


class FakeStore:
    """Answers once `answering` is set: with `admission` and `state`, or not at all while `away`. `full`: takes no queue
    either."""

    def __init__(self, *, durable: bool) -> None:
        self.durable = durable
        self.admission = Admission.CREATED
        self.state = State.WAITING
        self.away = False
        self.full = False
        self.asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()

    def get(self, capability: type) -> Any:
        assert capability in (Jobs, QueueControl, Inspection)
        return self

    async def register(self, queues: Sequence[str]) -> None:
        if self.full:
            raise StoreUnavailable("fake", "full")

    async def enqueue(self, jobs: Sequence[NewJob], *, now: int, grace: int) -> list[Enqueued]:
        self.asked.set()
        await self.answering.wait()
        if self.away:
            raise StoreUnavailable("fake", "away")
        return [Enqueued(job.id, self.admission, self.state, 1) for job in jobs]


class FakeDispatcher:
    """`spares`: tickets that were sent to the broker's memory; `spare`: whether it has them, told once `confirming` is
    set."""

    def __init__(self) -> None:
        self.spares: list[str] = []
        self.spare = True
        self.confirming = asyncio.Event()
        self.confirming.set()
        self.sent: list[str] = []
        self.recorded: list[str] = []
        self.receipt = Receipt.CONFIRMED

    def start(self, ready: Sequence[Ready]) -> tuple[asyncio.Future[list[Receipt]], Callable[[], None]]:
        self.sent += [one.id for one in ready]
        future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        future.set_result([self.receipt for _ in ready])
        return future, lambda: self.recorded.extend(one.id for one in ready)

    async def send(self, ready: Sequence[Ready]) -> list[Receipt]:
        return await self.start(ready)[0]

    def send_soon(self, ready: Sequence[Ready]) -> None:
        self.start(ready)

    def send_spare(self, ready: Ready) -> asyncio.Task[bool]:
        self.spares.append(ready.id)
        return asyncio.create_task(self._answer_spare())

    async def _answer_spare(self) -> bool:
        await self.confirming.wait()
        return self.spare

    def delayed_soon(self, queue: str, run_at: int) -> None: ...


class Scene:
    def __init__(self, *, durable: bool = False) -> None:
        self.store, self.dispatcher = FakeStore(durable=durable), FakeDispatcher()
        store: Any = self.store
        dispatcher: Any = self.dispatcher
        settings = Settings(broker="memory://", store="memory://")
        self.producer = Producer(store=store, dispatcher=dispatcher, settings=settings, clock=SystemClock())

    async def hand_over(self, *ids: str) -> None:
        """From now on, each job to a standing claim; these are."""
        self.store.state = State.ACTIVE
        for id in ids:
            await self.producer.enqueue([job(id)], fresh=True)
        self.dispatcher.sent.clear()
        self.dispatcher.spares.clear()

    async def enqueue_slowly(self, jobs: Sequence[NewJob], *, fresh: bool = True) -> tuple[list[str], list[Enqueued]]:
        """What was sent before the store answered, and the answers."""
        self.store.asked.clear()
        self.store.answering.clear()
        enqueueing = asyncio.create_task(self.producer.enqueue(jobs, fresh=fresh))
        await self.store.asked.wait()
        sent = list(self.dispatcher.sent)
        self.store.answering.set()
        return sent, await enqueueing


def job(id: str = "a", **more: Any) -> NewJob:
    return NewJob(id=id, queue="q", task="t", payload=b"{}", created_at=0, **more)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_lone_job_with_an_id_of_its_own_is_sent_while_it_is_recorded(durable: bool) -> None:
    scene = Scene(durable=durable)
    sent, (answer,) = await scene.enqueue_slowly([job()])
    assert sent == scene.dispatcher.sent == scene.dispatcher.recorded == ["a"]
    assert answer.admission is Admission.CREATED


@pytest.mark.parametrize(
    ("jobs", "fresh"),
    [
        pytest.param([job()], False, id="an id that somebody chose"),
        pytest.param([job(run_at=1)], True, id="delayed until a moment that has passed"),
        pytest.param([job(deduplication=Deduplication(id="d"))], True, id="deduplicated"),
        pytest.param([job(str(n)) for n in range(AT_ONCE + 1)], True, id="many"),
    ],
)
async def test_other_jobs_are_sent_when_they_are_recorded(jobs: list[NewJob], fresh: bool) -> None:
    scene = Scene()
    sent, _ = await scene.enqueue_slowly(jobs, fresh=fresh)
    assert sent == []
    assert scene.dispatcher.sent == [one.id for one in jobs]


async def test_while_the_store_is_busy_with_others_a_job_is_sent_when_it_is_recorded() -> None:
    scene = Scene()
    scene.store.answering.clear()
    first = asyncio.create_task(scene.producer.enqueue([job("first")], fresh=True))
    await scene.store.asked.wait()
    scene.store.asked.clear()
    sent, _ = await scene.enqueue_slowly([job("second")])
    assert sent == ["first"]
    await first
    assert scene.dispatcher.sent == ["first", "second"]


async def test_a_job_whose_worker_was_quicker_than_the_store_was_created() -> None:
    scene = Scene()
    scene.store.admission = Admission.EXISTING
    (answer,) = await scene.producer.enqueue([job()], fresh=True)
    assert answer.admission is Admission.CREATED


async def test_without_the_brokers_confirm_there_is_no_yes_where_the_store_is_not_durable() -> None:
    scene = Scene()
    scene.dispatcher.receipt = Receipt.UNKNOWN
    with pytest.raises(EnqueueUncertain, match="the broker has not taken it"):
        await scene.producer.enqueue([job()], fresh=True)


async def test_who_is_told_that_a_job_is_uncertain_is_told_its_id() -> None:
    for fault in ("full", "away"):
        scene = Scene()
        setattr(scene.store, fault, True)
        with pytest.raises(EnqueueUncertain, match=f"{fault}; enqueue again with the same id is safe: a, b") as told:
            await scene.producer.enqueue([job("a"), job("b")])
        assert told.value.job_ids == ("a", "b")
        assert isinstance(told.value.__cause__, StoreUnavailable)


async def test_after_the_store_did_not_answer_nothing_is_sent_before_it_has_answered_again() -> None:
    scene = Scene()
    scene.store.away = True
    for id in ("a", "b"):
        with pytest.raises(EnqueueUncertain, match="away"):
            await scene.producer.enqueue([job(id)], fresh=True)
    assert scene.dispatcher.sent == ["a"]
    scene.store.away = False
    sent, _ = await scene.enqueue_slowly([job("c")])
    assert sent == ["a"]
    assert scene.dispatcher.sent == ["a", "c"]


async def test_the_ticket_of_a_job_that_is_taken_before_its_time_is_its_scanners_to_send() -> None:
    store, dispatcher = make_store("memory://", namespace="producer"), FakeDispatcher()
    await store.open()
    fake: Any = dispatcher
    settings = Settings(broker="memory://", store="memory://")
    producer = Producer(store=store, dispatcher=fake, settings=settings, clock=SystemClock())
    now = SystemClock().now()
    await producer.enqueue([job(run_at=now + 20_000)], confirm=True)
    due = await store.get(Delays).take_due(["q"], now=now, grace=0, limit=1, ahead=30_000)
    assert [ready.id for ready in due.ready] == ["a"]
    (answer,) = await producer.enqueue([job(run_at=now + 20_000)], confirm=True)
    assert answer.state is State.WAITING
    assert dispatcher.sent == []
    await store.close()


async def test_a_job_like_one_that_was_handed_over_is_recorded_first_and_has_a_spare_ticket_meanwhile() -> None:
    scene = Scene()
    await scene.hand_over("before")
    scene.dispatcher.confirming.clear()
    enqueueing = asyncio.create_task(scene.producer.enqueue([job()], fresh=True))
    async with asyncio.timeout(10):
        while not scene.dispatcher.spares:
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not enqueueing.done()  # the store may forget it, and the broker has not confirmed
    scene.dispatcher.confirming.set()
    (answer,) = await enqueueing
    assert (answer.state, scene.dispatcher.spares, scene.dispatcher.sent) == (State.ACTIVE, ["a"], [])


async def test_if_it_is_not_handed_over_after_all_it_gets_a_ticket_that_lasts() -> None:
    scene = Scene()
    await scene.hand_over("before")
    scene.store.state = State.WAITING
    scene.dispatcher.confirming.clear()  # nobody waits for that
    sent, _ = await scene.enqueue_slowly([job()])
    assert (sent, scene.dispatcher.sent) == ([], ["a"])
    sent, _ = await scene.enqueue_slowly([job("b")])  # the next is sent at once again
    assert sent == ["a", "b"]
    scene.dispatcher.confirming.set()


async def test_a_ticket_that_lasts_has_to_be_confirmed_where_the_store_is_not_durable() -> None:
    scene = Scene()
    await scene.hand_over("before")
    scene.store.state = State.WAITING
    scene.dispatcher.receipt = Receipt.UNKNOWN
    with pytest.raises(EnqueueUncertain, match="the broker has not taken it"):
        await scene.producer.enqueue([job()], fresh=True)


@pytest.mark.parametrize("fresh", [True, False])
async def test_what_a_durable_store_has_handed_over_needs_no_ticket(fresh: bool) -> None:
    scene = Scene(durable=True)
    await scene.hand_over("before")
    for confirm in (False, True):
        (answer,) = await scene.producer.enqueue([job()], fresh=fresh, confirm=confirm)
        assert answer.state is State.ACTIVE
    assert (scene.dispatcher.spares, scene.dispatcher.sent) == ([], [])


async def test_on_a_durable_store_one_that_waits_after_all_gets_a_ticket() -> None:
    scene = Scene(durable=True)
    await scene.hand_over("before")
    scene.store.state = State.WAITING
    await scene.producer.enqueue([job()], fresh=True)
    assert (scene.dispatcher.spares, scene.dispatcher.sent) == ([], ["a"])


async def test_what_was_handed_over_without_a_spare_gets_a_ticket_where_the_store_is_not_durable() -> None:
    scene = Scene()
    scene.store.state = State.ACTIVE
    await scene.producer.enqueue([job()], fresh=False)
    assert (scene.dispatcher.spares, scene.dispatcher.sent) == ([], ["a"])


async def test_where_the_spare_is_not_confirmed_it_gets_a_ticket_too() -> None:
    scene = Scene()
    await scene.hand_over("before")
    scene.dispatcher.spare = False
    await scene.producer.enqueue([job()], fresh=True)
    assert (scene.dispatcher.spares, scene.dispatcher.sent) == (["a"], ["a"])


async def test_while_the_broker_is_away_what_was_handed_over_is_uncertain_where_the_store_is_not_durable() -> None:
    scene = Scene()
    await scene.hand_over("before")
    scene.dispatcher.spare, scene.dispatcher.receipt = False, Receipt.UNKNOWN
    with pytest.raises(EnqueueUncertain, match="the broker has not taken it") as told:
        await scene.producer.enqueue([job()], fresh=True)
    assert told.value.job_ids == ("a",)


async def test_a_store_that_does_not_answer_leaves_it_uncertain_though_the_spare_is_sent() -> None:
    scene = Scene()
    await scene.hand_over("before")
    scene.store.away = True
    with pytest.raises(EnqueueUncertain, match="away"):
        await scene.producer.enqueue([job()], fresh=True)


async def test_jobs_of_other_queues_and_several_at_once_are_sent_while_they_are_recorded() -> None:
    scene = Scene()
    await scene.hand_over("before")
    scene.store.state = State.WAITING
    await scene.enqueue_slowly([job("b"), job("c")])
    assert (scene.dispatcher.spares, scene.dispatcher.sent) == ([], ["b", "c"])
    sent, _ = await scene.enqueue_slowly([structs.replace(job("d"), queue="another")])
    assert (scene.dispatcher.spares, sent) == ([], ["b", "c", "d"])


@pytest.mark.parametrize("state", [State.DELAYED, State.COMPLETED], ids=str)
async def test_one_that_is_delayed_or_has_ended_was_not_handed_over(state: State) -> None:
    scene = Scene()
    await scene.hand_over()
    scene.store.state = state
    await scene.producer.enqueue([job("first")], fresh=True)
    scene.store.state = State.WAITING
    sent, _ = await scene.enqueue_slowly([job()])
    assert (scene.dispatcher.spares, sent[-1]) == ([], "a")
