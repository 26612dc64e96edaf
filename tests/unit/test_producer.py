"""When a job is sent: once it is recorded, or at the same time where nothing can be lost or doubled by that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

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
    """Answers once `answering` is set: with `admission`, or not at all while `away`. `full`: takes no queue either."""

    def __init__(self, *, durable: bool) -> None:
        self.durable = durable
        self.admission = Admission.CREATED
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
        return [Enqueued(job.id, self.admission, State.WAITING, 1) for job in jobs]


class FakeDispatcher:
    def __init__(self) -> None:
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

    def delayed_soon(self, queue: str, run_at: int) -> None: ...


class Scene:
    def __init__(self, *, durable: bool = False) -> None:
        self.store, self.dispatcher = FakeStore(durable=durable), FakeDispatcher()
        store: Any = self.store
        dispatcher: Any = self.dispatcher
        settings = Settings(broker="memory://", store="memory://")
        self.producer = Producer(store=store, dispatcher=dispatcher, settings=settings, clock=SystemClock())

    async def enqueue_slowly(self, jobs: Sequence[NewJob], *, fresh: bool = True) -> tuple[list[str], list[Enqueued]]:
        """What was sent before the store answered, and the answers."""
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
