"""What is particular to MongoDB: names that are only data, indexes that are used, guards between documents."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from callboard.metadata.contract import (
    CAPABILITIES,
    Deduplicating,
    Delays,
    Ending,
    Finish,
    Inspection,
    Jobs,
    Outcome,
    Passing,
    QueueControl,
    Retention,
    Sent,
    Ticket,
    Verdict,
    Workers,
)
from callboard.metadata.ends import Ends
from callboard.metadata.errors import StoreError, StoreRefused, StoreUnavailable
from callboard.metadata.job import Deduplication, Keep, NewJob, State
from callboard.metadata.mongo import MongoStore
from callboard.metadata.mongo.counting import AUDITS
from callboard.metadata.mongo.indexes import INDEXES
from callboard.metadata.mongo.names import job_name
from callboard.metadata.mongo.record import LEAN
from callboard.metadata.mongo.schedules import MongoSchedules, _packed
from callboard.metadata.mongo.work import Work
from callboard.metadata.schedule import Firing, NewSchedule
from callboard.metadata.schedules import Fire, Schedules
from callboard.metadata.standing import StandingClaims
from callboard.runtime.clock import SystemClock
from mongo_space import MongoSpace

BOOT, QUEUE = "boot-a", "emails"
HOSTILE = [
    "plain", "$where", "$name", "$$NOW", "$$REMOVE", '{"$gt": ""}', "a.b", "nul\0inside", "", " ", "5:queue:id", ":",
    "ünïcödé ☃", "%", "{}", "dead", "name",
]  # fmt: skip


@pytest.fixture(params=["mongo_url", "mongo_replica_url"])
def space(request: pytest.FixtureRequest) -> MongoSpace:
    return MongoSpace(request.getfixturevalue(request.param))


@pytest_asyncio.fixture
async def store(space: MongoSpace) -> AsyncIterator[MongoStore]:
    store = space.store()
    await store.open()
    yield store
    await store.close()
    await space.delete()


def _job(id: str, queue: str, now: int, **more: Any) -> NewJob:
    return NewJob(id=id, queue=queue, task=id, payload=id.encode() + b"\xff\0", created_at=now, **more)


async def _enqueue(store: MongoStore, *ids: str) -> None:
    now = SystemClock().now()
    await store.get(Jobs).enqueue([_job(id, QUEUE, now) for id in ids], now=now, grace=1_000)


async def _claim(store: MongoStore, *ids: str, boot: str = BOOT) -> list[str]:
    """The ids that were claimed."""
    now = SystemClock().now()
    answers = await store.get(Jobs).claim(QUEUE, boot, [Ticket(id, 1) for id in ids], now=now, keep_expired=Keep())
    return [answer.id for answer in answers if answer.verdict is Verdict.CLAIMED]


async def _beat(store: MongoStore, boot: str = BOOT) -> None:
    assert (await store.get(Workers).heartbeat(boot, [QUEUE], info=b"", now=SystemClock().now())).alive


async def _live(store: MongoStore, queue: str, ids: list[str]) -> None:
    """Jobs from their enqueue to their end, with their names in every place that takes one."""
    now = SystemClock().now()
    jobs, boot = store.get(Jobs), f"boot {queue}"
    await store.get(Workers).heartbeat(boot, [queue], info=queue.encode(), now=now)
    modes = [Deduplication(id=id, ttl=60_000) for id in ids]
    await jobs.enqueue(
        [_job(id, queue, now, deduplication=mode) for id, mode in zip(ids, modes, strict=True)], now=now, grace=0
    )
    await jobs.enqueue([_job(f"2{id}", queue, now, run_at=now + 60_000) for id in ids], now=now, grace=0)
    plain = [f"3{id}" for id in ids]
    await jobs.enqueue([_job(id, queue, now) for id in plain], now=now, grace=0)
    everything = [*ids, *plain]
    await jobs.claim(queue, boot, [Ticket(id, 1) for id in everything], now=now, keep_expired=Keep())
    await jobs.cancel(queue, ids, now=now, keep=Keep())
    outcomes = [
        Outcome(
            id=id, dispatch=1, owner=boot, ending=Ending.COMPLETED, result=id.encode(), history=id.encode(),
            error=None if at % 2 else b"$error", keep=Keep(age=60_000, count=50, group=queue),
        )
        for at, id in enumerate(everything)
    ]  # fmt: skip
    for some in (outcomes[: len(ids)], outcomes[len(ids) :]):  # with deduplication ids, and without: the quick way
        answers = await jobs.finish(queue, some, now=now, grace=0)
        assert {answer.finish for answer in answers} == {Finish.DONE}


@pytest.mark.parametrize("queue", HOSTILE)
async def test_hostile_names_come_back_as_they_were(store: MongoStore, queue: str) -> None:
    await _live(store, queue, HOSTILE)
    wanted = [*HOSTILE, *(f"3{id}" for id in HOSTILE)]
    found = await store.get(Inspection).get(queue, wanted)
    assert [job and (job.id, job.queue, job.task, job.result, job.error, job.history) for job in found] == [
        (id, queue, id, id.encode(), None if at % 2 else b"$error", (id.encode(),)) for at, id in enumerate(wanted)
    ]
    assert await store.get(Inspection).audit(queue) == []


async def test_no_text_of_a_user_is_the_name_of_a_field_or_an_operator(store: MongoStore, space: MongoSpace) -> None:
    ours = re.compile(r"[a-z_]+")
    for queue in HOSTILE:
        await _live(store, queue, HOSTILE)
    for document in space.documents():
        fields = set(document) | {field for window in document.get("windows", ()) for field in window}
        assert all(ours.fullmatch(field) for field in fields)


class Seen(CommandListener):
    def __init__(self) -> None:
        self.commands: list[Any] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.commands.append(event.command)

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


def _operators(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = {key for key in value if key.startswith("$")} - {"$literal"}
        return here.union(*(_operators(inner) for key, inner in value.items() if key != "$literal"), set())
    return set().union(*map(_operators, value)) if isinstance(value, list) else set()


async def test_only_our_own_operators_reach_the_server_and_every_write_is_journaled_by_a_majority(
    space: MongoSpace,
) -> None:
    seen = Seen()
    client: Any = AsyncMongoClient(space.url, event_listeners=[seen], w=0, readPreference="secondaryPreferred")
    store = space.store_on(client)
    await store.open()
    for queue in HOSTILE:
        await _live(store, queue, HOSTILE)
        await store.get(QueueControl).pause(queue)
    await store.get(Retention).prune(HOSTILE, now=SystemClock().now(), adoption_window=0, limit=10)
    await store.close()
    await space.delete()
    used = set().union(*(_operators(command) for command in seen.commands))
    assert used <= {
        "$in", "$or", "$lt", "$lte", "$gte", "$ne", "$exists", "$expr", "$toLong", "$inc", "$set", "$unset", "$push",
        "$each", "$slice", "$setOnInsert", "$max", "$arrayElemAt", "$indexOfArray", "$concatArrays", "$ifNull", "$add",
        "$match", "$group", "$sum", "$limit", "$db", "$readPreference", "$clusterTime",
    }  # fmt: skip
    writes = [command for command in seen.commands if next(iter(command)) in ("insert", "update", "delete")]
    reads = [command for command in seen.commands if next(iter(command)) in ("find", "aggregate", "distinct")]
    concerns = [command["writeConcern"] for command in writes]
    assert [dict(one) for one in concerns] == [{"w": "majority", "j": True, "wtimeout": 5000}] * len(writes)
    assert {command["readConcern"]["level"] for command in reads} == {"majority"}
    modes = {command.get("$readPreference", {}).get("mode", "primary") for command in reads}
    assert modes <= {"primary", "primaryPreferred"}  # a direct connection says the latter, and means the one server


# -- indexes -----------------------------------------------------------------------------------------------------------


async def test_every_read_and_write_goes_by_an_index(space: MongoSpace) -> None:
    seen = Seen()
    client: Any = AsyncMongoClient(space.url, event_listeners=[seen])
    store = space.store_on(client)
    await store.open()
    await _live(store, QUEUE, ["a", "b"])
    seen.commands.clear()
    now = SystemClock().now()
    jobs, workers, inspection = store.get(Jobs), store.get(Workers), store.get(Inspection)
    await _live(store, QUEUE, ["c", "d"])
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: jobs.published([Sent(QUEUE, "a", 1)], now=now),
        lambda: jobs.take_unpublished([QUEUE, "other"], now=now, grace=0, limit=10),
        lambda: jobs.take_overtaken([QUEUE], now=now, grace=0, lag=0, sent_before=now + 1, limit=10),
        lambda: store.get(Delays).take_due([QUEUE, "other"], now=now, grace=0, limit=10),
        lambda: workers.workers([QUEUE]),
        lambda: workers.heartbeat("boot x", [QUEUE], info=b"", now=now),
        lambda: workers.declare_dead(QUEUE, "boot x", beat=1, now=now),
        lambda: workers.take_stalled(
            QUEUE, "boot x", now=now, grace=0, max_stalled=1, error=b"", history=b"", keep=Keep(), limit=10
        ),
        lambda: workers.leave("boot x", [QUEUE]),
        lambda: store.get(Deduplicating).holder(QUEUE, "a", now=now),
        lambda: store.get(Deduplicating).release(QUEUE, "a"),
        lambda: inspection.counts([QUEUE, "other"]),
        lambda: inspection.page(QUEUE, State.WAITING, offset=0, limit=10, newest_first=True),
        lambda: inspection.page(QUEUE, State.COMPLETED, offset=0, limit=10, newest_first=False),
        lambda: store.get(Retention).prune([QUEUE, "other"], now=now + 10**9, adoption_window=0, limit=10),
        lambda: store.get(QueueControl).clear(QUEUE, State.WAITING, before=now, limit=10, now=now),
        lambda: store.get(QueueControl).queues(),
        lambda: store.get(QueueControl).paused([QUEUE]),
        lambda: store.get(QueueControl).forget("other"),
    ]
    for call in calls:
        await call()
    scans = []
    with MongoClient[dict[str, Any]](space.url) as other:
        for command in seen.commands:
            kind = next(iter(command))
            if kind in ("find", "aggregate", "distinct", "update", "delete"):
                for explained in _explainable(kind, command):
                    plan = other[space.database].command("explain", explained, verbosity="queryPlanner")
                    text = str(plan)
                    if "COLLSCAN" in text or ("'SORT'" in text and "SORT_MERGE" not in text):
                        scans.append(explained)
    await store.close()
    await space.delete()
    assert scans == []


def _explainable(kind: str, command: Any) -> list[dict[str, Any]]:
    names = ("find", "aggregate", "distinct", "update", "delete", "filter", "sort", "limit", "skip", "pipeline",
             "cursor", "key", "query", "projection", "updates", "deletes")  # fmt: skip
    plain = {name: value for name, value in command.items() if name in names}
    if kind == "update":
        return [{**plain, "updates": [one]} for one in plain["updates"]]
    if kind == "delete":
        return [{**plain, "deletes": [one]} for one in plain["deletes"]]
    return [plain]


async def test_a_missing_index_is_made_again_when_the_store_is_opened(store: MongoStore, space: MongoSpace) -> None:
    with MongoClient[dict[str, Any]](space.url) as client:
        client[space.database][f"{space.namespace}.jobs"].drop_index("outbox")
    assert [check.name for check in await store.check()][-1] == "mongodb-index"
    other = space.store()
    await other.open()
    assert "mongodb-index" not in [check.name for check in await other.check()]
    await other.close()


async def test_the_indexes_of_the_former_version_are_replaced(store: MongoStore, space: MongoSpace) -> None:
    await _enqueue(store, "job")
    with MongoClient[dict[str, Any]](space.url) as client:
        jobs = client[space.database][f"{space.namespace}.jobs"]
        jobs.drop_index("list")
        jobs.create_index([("queue", 1), ("state", 1), ("at", 1)], name="state")
        jobs.create_index(
            [("queue", 1), ("owner", 1)], name="owner", partialFilterExpression={"owner": {"$exists": True}}
        )
        peers = [space.store(), space.store()]
        await asyncio.gather(*(peer.open() for peer in peers))
        assert jobs.index_information().keys() - {"_id_"} == {index.name for index in INDEXES}
    await _beat(peers[0])
    assert await _claim(peers[1], "job") == ["job"]
    for peer in peers:
        assert "mongodb-index" not in [check.name for check in await peer.check()]
        await peer.close()


async def test_a_unique_index_of_another_shape_is_refused_by_name(space: MongoSpace) -> None:
    with MongoClient[dict[str, Any]](space.url) as client:
        client[space.database][f"{space.namespace}.jobs"].create_index("name", name="name")
    with pytest.raises(StoreRefused, match="the index 'name' is not what this version"):
        await space.store().open()
    await space.delete()


# -- between documents -------------------------------------------------------------------------------------------------


async def test_no_claim_is_written_past_its_deadline(store: MongoStore, space: MongoSpace) -> None:
    await _beat(store)
    await _enqueue(store, "job")
    work = Work(store._connection)
    await work.load([job_name(QUEUE, "job")], without=LEAN)
    record = work.find(job_name(QUEUE, "job"))
    assert record is not None
    assert work.clock is not None
    work.deadline = work.clock
    record.activate(owner=BOOT, dispatch=1, now=work.clock, clock=work.clock)
    assert await work.commit() == {job_name(QUEUE, "job")}
    assert [one["state"] for one in space.documents(id="job")] == ["waiting-due"]


async def test_a_job_just_made_is_claimed_by_a_write_without_a_look_at_it(space: MongoSpace) -> None:
    own, seen = MongoSpace(space.url, claim_window=60_000), Seen()
    client: Any = AsyncMongoClient(space.url, event_listeners=[seen])
    store = own.store_on(client)
    await store.open()
    await _beat(store)
    for id, commands in (("first", ["find", "update"]), ("second", ["update"])):  # `find`: the worker's row
        await _enqueue(store, id)
        seen.commands.clear()
        assert await _claim(store, id) == [id]
        assert [next(iter(command)) for command in seen.commands] == commands
    assert await store.get(Inspection).audit(QUEUE) == []
    await store.close()
    await own.delete()


async def _claim_all(store: MongoStore, ids: list[str], boot: str = BOOT) -> None:
    for id in ids:
        await _claim(store, id, boot=boot)


async def _active(store: MongoStore) -> int:
    return (await store.get(Inspection).counts([QUEUE]))[QUEUE].active


async def test_claims_under_way_do_not_slip_past_a_pause(store: MongoStore, space: MongoSpace) -> None:
    peers = [space.store() for _ in range(4)]
    ids = [str(n) for n in range(400)]
    for start in range(0, len(ids), 100):
        await _enqueue(store, *ids[start : start + 100])
    await _beat(store)
    for peer in peers:
        await peer.open()
    claiming = [asyncio.create_task(_claim_all(peer, ids[at::4])) for at, peer in enumerate(peers)]
    while await _active(store) < 20:  # ends: claims go on
        assert not all(task.done() for task in claiming)
    await store.get(QueueControl).pause(QUEUE)
    begun = await _active(store)
    assert begun < len(ids)
    await asyncio.gather(*claiming)
    assert await _active(store) == begun
    counts = (await store.get(Inspection).counts([QUEUE]))[QUEUE]
    assert counts.held == len(ids) - begun
    for peer in peers:
        await peer.close()


async def test_a_dead_boots_claims_under_way_are_all_recovered(store: MongoStore, space: MongoSpace) -> None:
    peer = space.store()
    await peer.open()
    ids = [str(n) for n in range(500)]
    for start in range(0, len(ids), 100):
        await _enqueue(store, *ids[start : start + 100])
    await _beat(store)
    claiming = asyncio.create_task(_claim_all(peer, ids))
    while await _active(store) < 20:  # ends: claims go on
        assert not claiming.done()
    workers, now = store.get(Workers), SystemClock().now()
    (row,) = await workers.workers([QUEUE])
    assert await workers.declare_dead(QUEUE, BOOT, beat=row.beat, now=now)
    more, taken = True, 0
    while more:  # ends with the boot's jobs
        part = await workers.take_stalled(
            QUEUE, BOOT, now=now, grace=0, max_stalled=1, error=b"", history=b"", keep=Keep(), limit=50
        )
        more, taken = part.more, taken + len(part.ready)
    assert taken >= 20
    await claiming
    assert await _active(store) == 0
    assert await workers.workers([QUEUE]) == []
    assert await store.get(Inspection).audit(QUEUE) == []
    await peer.close()


async def test_counts_of_many_finished_jobs_come_from_counters_that_agree(store: MongoStore, space: MongoSpace) -> None:
    await _beat(store)
    now, total = SystemClock().now(), 2_304
    jobs, keep = store.get(Jobs), Keep(count=2_200)
    for start in range(0, total, 128):
        ids = [str(n) for n in range(start, start + 128)]
        await _enqueue(store, *ids)
        await _claim(store, *ids)
        outcomes = [Outcome(id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED, keep=keep) for id in ids]
        await jobs.finish(QUEUE, outcomes, now=now, grace=0)
        await jobs.finish(QUEUE, outcomes, now=now, grace=0)  # a repeat counts nothing
    inspection, retention = store.get(Inspection), store.get(Retention)
    assert (await inspection.counts([QUEUE]))[QUEUE].completed == total
    pruned = await retention.prune([QUEUE], now=now, adoption_window=60_000, limit=128)
    assert (pruned.removed, pruned.more) == (104, False)
    assert (await inspection.counts([QUEUE]))[QUEUE].completed == 2_200
    assert await inspection.audit(QUEUE) == []
    for wrong in (64, -64):  # as a process leaves it that dies while it ends jobs
        space.change({"state": "group"}, {"$inc": {"count": wrong}})
        now += 3_600_001
        pruned = await retention.prune([QUEUE], now=now, adoption_window=10**9, limit=128)
        assert (pruned.removed, (await inspection.counts([QUEUE]))[QUEUE].completed) == (0, 2_200)
        assert await inspection.audit(QUEUE) == []


@pytest.mark.parametrize("keep", [20, None])
async def test_retention_puts_the_counter_of_a_small_group_right_within_the_hour(
    store: MongoStore, space: MongoSpace, keep: int | None
) -> None:
    await _beat(store)
    now, ids = SystemClock().now(), [str(n) for n in range(20)]
    await _enqueue(store, *ids)
    await _claim(store, *ids)
    outcomes = [Outcome(id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED, keep=Keep(count=keep)) for id in ids]
    await store.get(Jobs).finish(QUEUE, outcomes, now=now, grace=0)
    inspection, retention = store.get(Inspection), store.get(Retention)
    for wrong in (-4, 4):  # as a process leaves it that dies while it ends jobs
        space.change({"state": "group"}, {"$inc": {"count": wrong}})
        (fault,) = await inspection.audit(QUEUE)
        assert isinstance(fault, Passing)
        assert f"20 jobs are kept in 'completed:', and {20 + wrong} are noted" in fault
        now += 3_600_001
        pruned = await retention.prune([QUEUE], now=now, adoption_window=10**9, limit=128)
        assert (pruned.removed, await inspection.audit(QUEUE)) == (0, [])


async def test_a_counter_that_is_too_low_keeps_no_more_than_is_to_be_kept(store: MongoStore, space: MongoSpace) -> None:
    await _beat(store)
    now, ids = SystemClock().now(), [str(n) for n in range(24)]
    await _enqueue(store, *ids)
    await _claim(store, *ids)
    outcomes = [Outcome(id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED, keep=Keep(count=20)) for id in ids]
    await store.get(Jobs).finish(QUEUE, outcomes, now=now, grace=0)
    space.change({"state": "group"}, {"$inc": {"count": -24}})
    pruned = await store.get(Retention).prune([QUEUE], now=now, adoption_window=10**9, limit=128)
    assert (pruned.removed, await store.get(Inspection).audit(QUEUE)) == (4, [])


async def test_counters_of_many_groups_are_put_right_some_in_each_call(store: MongoStore, space: MongoSpace) -> None:
    now, queues = SystemClock().now(), [f"queue {n}" for n in range(AUDITS + 1)]
    jobs, retention = store.get(Jobs), store.get(Retention)
    await jobs.enqueue([_job("job", queue, now) for queue in queues], now=now, grace=0)
    await asyncio.gather(*(jobs.cancel(queue, ["job"], now=now, keep=Keep()) for queue in queues))
    space.change({"state": "group"}, {"$inc": {"count": 1}})
    for left in (1, 0):
        await retention.prune(queues, now=now, adoption_window=10**9, limit=128)
        assert [one["count"] for one in space.documents(state="group")].count(2) == left


# -- the store ---------------------------------------------------------------------------------------------------------


async def test_two_namespaces_do_not_meet(store: MongoStore, space: MongoSpace) -> None:
    other_space = MongoSpace(space.url)
    other = other_space.store()
    await other.open()
    await _enqueue(store, "job")
    await store.get(QueueControl).register([QUEUE])
    assert await other.get(QueueControl).queues() == []
    assert await other.get(Inspection).get(QUEUE, ["job"]) == [None]
    assert other.epoch != store.epoch
    await other.close()
    await other_space.delete()


async def test_processes_on_one_namespace_go_by_its_first_claim_window(store: MongoStore, space: MongoSpace) -> None:
    other = MongoStore.from_url(space.url, namespace=space.namespace, claim_window=9_000)
    await other.open()
    assert other._connection.claim_window == store._connection.claim_window == 50
    await other.close()


async def test_a_namespace_in_a_layout_of_a_later_version_is_refused(store: MongoStore, space: MongoSpace) -> None:
    space.change({"name": "store"}, {"$set": {"layout": 2}})
    with pytest.raises(StoreRefused, match="is kept in layout 2, and this version of Callboard knows layout 1"):
        await space.store().open()
    space.change({"name": "store"}, {"$unset": {"layout": ""}})  # as the first version left it
    again = space.store()
    await again.open()
    assert again.epoch == store.epoch
    await again.close()


async def test_a_given_client_is_neither_opened_nor_closed(space: MongoSpace) -> None:
    client: Any = AsyncMongoClient(space.url)
    store = space.store_on(client)
    await store.open()
    await store.close()
    assert (await client.admin.command("ping"))["ok"] == 1
    await store.open()
    await store.ping()
    await store.close()
    await space.delete()


async def test_a_closed_store_is_unavailable_and_may_be_closed_again_and_reopened(store: MongoStore) -> None:
    epoch = store.epoch
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.ping()
    with pytest.raises(StoreUnavailable, match="not open"):
        _ = store.epoch
    await store.open()
    await store.ping()
    assert store.epoch == epoch


async def test_a_job_too_large_for_a_document_is_a_fault_and_harms_no_other(store: MongoStore) -> None:
    now = SystemClock().now()
    large = NewJob(id="large", queue=QUEUE, task="task", payload=bytes(17 << 20), created_at=now)
    with pytest.raises(StoreError, match=r"16MB|DocumentTooLarge|too large"):
        await store.get(Jobs).enqueue([large], now=now, grace=0)
    await _enqueue(store, "small")
    assert (await store.get(Inspection).counts([QUEUE]))[QUEUE].waiting == 1


def test_every_capability_is_offered_but_those_in_which_the_store_speaks_first() -> None:
    store = MongoStore.from_url("mongodb://nowhere", namespace="any")
    assert store.capabilities == frozenset(CAPABILITIES) - {StandingClaims, Ends}
    assert all(isinstance(store.get(capability), capability) for capability in store.capabilities)


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://user:hunter2@host:hunter2/x",
        "mongodb://user:hunter2@host:27017hunter2",
        "mongodb://user:hunter2/x@host/x",
        "mongodb://user:hunter2@",
        "mongodb://user:hunter2@host/x?timeout=hunter2",
        "mongodb://user:hunter2@host/x?timeout=0",
        "mongodb://user:hunter2@host/x?driver=hunter2",
        "mongodb://user:hunter2@host/x?w=1",
        "mongodb://user:hunter2@host/x?journal=false",
        "mongodb://user:hunter2@host/x?readPreference=secondary",
        "mongodb://user:hunter2@host/x?tlsInsecure=true",
        "mongodb://user:hunter2@host/x?tlsAllowInvalidCertificates=true",
        "mongodb://user:hunter2@host/x?authMechanism=hunter2",
        "mongodb://user:hunter2@host/x?hunter=hunter2",
        "mongodb://user:hunter2@host/a$b.hunter2",
        "http://user:hunter2@host/x",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreRefused) as refused:
        MongoStore.from_url(url, namespace="any")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


async def test_a_url_may_ask_for_motor(mongo_url: str) -> None:
    store = MongoStore.from_url(f"{mongo_url}&driver=motor", namespace="any")
    await store.open()
    try:
        assert isinstance(store._connection._client, AsyncIOMotorClient)
        await store.ping()
    finally:
        await store.close()


def test_an_address_shows_no_password() -> None:
    store = MongoStore.from_url("mongodb://user:hunter2@host:1/x?authSource=admin", namespace="any")
    assert repr(store._address) == "Address('mongodb://host:1/x')"


# -- firings -----------------------------------------------------------------------------------------------------------


async def _fired_and_died(store: MongoStore, space: MongoSpace, now: int) -> None:
    """A schedule as its scheduler leaves it when it dies after the write that decides who fires."""
    schedules = store.get(Schedules)
    new = NewSchedule(id="nightly", queue=QUEUE, trigger=b"t", definition=b"d", state=b"", next_run=now)
    await schedules.upsert([new], now=now)
    job = _job("nightly@1", QUEUE, now, deduplication=Deduplication(id="key", ttl=60_000))
    firing = Firing(id="nightly", due=now, revision=1, next_run=now + 60_000, state=b"", by="one", jobs=(job,))
    await schedules.fire(QUEUE, [firing], now=now, grace=1_000)
    (row,) = space.documents(schedule_id="nightly")
    assert "pending" not in row
    await store.get(Jobs).remove(QUEUE, [job.id], now=now)
    space.remove({"id": job.id})
    space.change({"schedule_id": "nightly"}, {"$set": {"pending": [_packed(job)], "due": now + 1_000}})


async def test_the_relay_records_what_a_dead_scheduler_has_fired(store: MongoStore, space: MongoSpace) -> None:
    now = SystemClock().now()
    await _fired_and_died(store, space, now)
    jobs = store.get(Jobs)
    assert await jobs.take_unpublished([QUEUE], now=now + 999, grace=0, limit=10) == []
    taken = await jobs.take_unpublished([QUEUE], now=now + 1_000, grace=1_000, limit=10)
    assert [(ready.id, ready.dispatch) for ready in taken] == [("nightly@1", 1)]
    assert await store.get(Deduplicating).holder(QUEUE, "key", now=now) == "nightly@1"
    assert "pending" not in space.documents(schedule_id="nightly")[0]
    assert await jobs.take_unpublished([QUEUE], now=now + 1_001, grace=0, limit=10) == []
    assert await store.get(Inspection).audit(QUEUE) == []


async def test_the_next_scheduler_records_what_the_last_one_left(store: MongoStore, space: MongoSpace) -> None:
    now = SystemClock().now()
    await _fired_and_died(store, space, now)
    firing = Firing(id="nightly", due=now + 60_000, revision=1, next_run=None, state=b"", by="two")
    (fired,) = await store.get(Schedules).fire(QUEUE, [firing], now=now, grace=1_000)
    assert fired.fire is Fire.FIRED
    assert (await store.get(Inspection).get(QUEUE, ["nightly@1"]))[0] is not None


async def test_a_schedule_is_removed_after_what_it_has_fired_is_recorded(store: MongoStore, space: MongoSpace) -> None:
    now = SystemClock().now()
    await _fired_and_died(store, space, now)
    assert await store.get(Schedules).remove(QUEUE, ["nightly"]) == [True]
    assert (await store.get(Inspection).get(QUEUE, ["nightly@1"]))[0] is not None


async def test_what_was_fired_run_and_forgotten_is_not_recorded_again(store: MongoStore, space: MongoSpace) -> None:
    now = SystemClock().now()
    await _fired_and_died(store, space, now)
    jobs = store.get(Jobs)
    await jobs.enqueue([_job("nightly@1", QUEUE, now)], now=now, grace=0)
    await jobs.remove(QUEUE, ["nightly@1"], now=now)
    assert await jobs.take_unpublished([QUEUE], now=now + 5_000, grace=0, limit=10) == []
    assert await store.get(Inspection).get(QUEUE, ["nightly@1"]) == [None]


class _Overtaken:
    """A connection on which something happens before the first insert."""

    def __init__(self, connection: Any, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._meanwhile = [meanwhile]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def insert(self, documents: list[dict[str, Any]]) -> Any:
        while self._meanwhile:
            await self._meanwhile.pop()()
        return await self._connection.insert(documents)


async def test_who_is_overtaken_while_it_fires_records_nothing_again(store: MongoStore) -> None:
    now, jobs = SystemClock().now(), store.get(Jobs)
    new = NewSchedule(id="nightly", queue=QUEUE, trigger=b"t", definition=b"d", state=b"", next_run=now)
    await store.get(Schedules).upsert([new], now=now)

    async def meanwhile() -> None:  # the relay does the rest; the job runs, and is forgotten at once
        assert [one.id for one in await jobs.take_unpublished([QUEUE], now=now + 1_000, grace=0, limit=10)] == ["job"]
        await jobs.remove(QUEUE, ["job"], now=now)

    overtaken: Any = _Overtaken(store._connection, meanwhile)
    firing = Firing(
        id="nightly", due=now, revision=1, next_run=None, state=b"", by="one", jobs=(_job("job", QUEUE, now),)
    )
    (fired,) = await MongoSchedules(overtaken).fire(QUEUE, [firing], now=now, grace=1_000)
    assert fired.fire is Fire.FIRED
    assert await store.get(Inspection).get(QUEUE, ["job"]) == [None]
