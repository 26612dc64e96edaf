"""The conformance suite on Redis, and what is particular to it and needs no server of its own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from redis.crc import key_slot
from yarl import URL

from callboard.metadata.contract import (
    CAPABILITIES,
    Ending,
    Inspection,
    Jobs,
    Outcome,
    QueueControl,
    Retention,
    Store,
    Ticket,
    Workers,
)
from callboard.metadata.errors import StoreRefused, StoreUnavailable
from callboard.metadata.job import Deduplication, Keep, NewJob, State
from callboard.metadata.redis import RedisStore
from callboard.metadata.redis.keys import Keys
from callboard.metadata.redis.scripts import read_scripts
from callboard.runtime.clock import SystemClock
from callboard.runtime.testing.stores import Cut, Line, store_conformance
from redis_space import RedisSpace
from redis_suite import RedisConformance

if TYPE_CHECKING:
    from callboard.runtime.testing.store_scene import Scene

HOSTILE = [
    "plain",
    "'); redis.call('FLUSHALL'); --",
    '"quoted"',
    "]] end error('x') --[[",
    "nul\0inside",
    "line\nbreak\r\n*3\r\n$3\r\nSET",
    "{",
    "}",
    "{}",
    "}{",
    "{other}",
    "a}:record",
    "a:{b}:paused",
    "%7B",
    "%",
    "%s%d%n",
    "ünïcödé ☃",
    "*?[a-z]^-\\",
    "",
    " ",
]


class TestRedisStore(RedisConformance):
    @pytest.fixture(autouse=True)
    def _servers(self, redis_url: str) -> None:
        self.use(redis_url)

    async def make_cut(self, store: Store, stack: AsyncExitStack) -> Cut:
        return await cut_off(self._url, self._spaces[store].namespace, self.time_limit, stack)

    async def test_a_group_outgrows_its_count_by_a_64th_at_most_until_the_next_prune(self, scene: Scene) -> None:
        queue = scene.new("any").queue
        for n in range(140):
            await scene.run(f"{n:03}", keep=Keep(count=64, group="task"))
            counts = await scene.inspection.counts([queue])
            assert counts[queue].completed <= 65
            scene.step(10)
        await scene.prune()
        page = await scene.inspection.page(queue, State.COMPLETED, offset=0, limit=100, newest_first=False)
        assert [job.id for job in page] == [f"{n:03}" for n in range(140 - 64, 140)]


async def cut_off(url: str, namespace: str, time_limit: float, stack: AsyncExitStack) -> Cut:
    at = URL(url)
    line = await stack.enter_async_context(Line(at.host or "", at.port or 0))
    behind = str(at.with_host("127.0.0.1").with_port(line.port).update_query(timeout=time_limit))
    return Cut(RedisStore.from_url(behind, namespace=namespace), line)


async def test_a_store_that_is_known_by_its_url_is_cut_where_it_is_said_how(redis_url: str) -> None:
    limits: list[float] = []

    async def cut(namespace: str, time_limit: float, stack: AsyncExitStack) -> Cut:
        limits.append(time_limit)
        return await cut_off(redis_url, namespace, time_limit, stack)

    suite = store_conformance(redis_url, cut=cut)()
    store = await suite.make_store()
    await store.open()
    try:
        await suite.test_what_is_cut_and_repeated_leaves_the_state_of_one_execution(store, "Leases")
    finally:
        await store.close()
    assert limits


@pytest_asyncio.fixture
async def space(redis_url: str) -> AsyncIterator[RedisSpace]:
    space = RedisSpace(redis_url)
    yield space
    await space.delete()


@pytest_asyncio.fixture
async def store(space: RedisSpace) -> AsyncIterator[RedisStore]:
    store = space.store()
    await store.open()
    yield store
    await store.close()


def _job(id: str, queue: str, now: int, **more: object) -> NewJob:
    return NewJob(id=id, queue=queue, task="task", payload=id.encode() + b"\xff\0", created_at=now, **more)  # type: ignore[arg-type]


async def _live(store: RedisStore, queue: str, id: str) -> None:
    """One job from its enqueue to its end, through each index that takes an id, a boot or a group into a key."""
    now = SystemClock().now()
    jobs, boot = store.get(Jobs), f"boot {id}"
    await store.get(Workers).heartbeat(boot, [queue], info=id.encode(), now=now)
    wanted = Deduplication(id=id, ttl=60_000)
    await jobs.enqueue([_job(id, queue, now, deduplication=wanted)], now=now, grace=0)
    await jobs.enqueue([_job(f"2{id}", queue, now, run_at=now + 60_000)], now=now, grace=0)
    await jobs.claim(queue, boot, [Ticket(id, 1)], now=now, keep_expired=Keep())
    assert await jobs.progress(queue, id, dispatch=1, owner=boot, value=id.encode())
    await jobs.cancel(queue, [id], now=now, keep=Keep())
    outcome = Outcome(
        id=id, dispatch=1, owner=boot, ending=Ending.COMPLETED, result=id.encode(), history=id.encode(),
        keep=Keep(age=60_000, count=5, group=id),
    )  # fmt: skip
    await jobs.finish(queue, [outcome], now=now, grace=0)


@pytest.mark.parametrize("queue", HOSTILE)
async def test_no_queue_or_id_moves_a_key_out_of_its_slot(store: RedisStore, space: RedisSpace, queue: str) -> None:
    for id in HOSTILE:
        await _live(store, queue, id)
    keys = await space.queue_keys()
    prefix = Keys(space.namespace).of_queue(queue).encode()
    assert {key_slot(key) for key in keys} == {key_slot(prefix)}
    assert all(key.startswith(prefix) for key in keys)
    assert await store.get(Inspection).audit(queue) == []


async def test_hostile_ids_come_back_as_they_were(store: RedisStore) -> None:
    for queue in HOSTILE:
        await _live(store, queue, queue)
    found = [(await store.get(Inspection).get(queue, [queue]))[0] for queue in HOSTILE]
    assert [job and (job.id, job.queue, job.payload, job.result, job.history) for job in found] == [
        (name, name, name.encode() + b"\xff\0", name.encode(), (name.encode(),)) for name in HOSTILE
    ]


def test_no_two_queues_share_a_prefix() -> None:
    prefixes = [Keys("space").of_queue(name) for name in HOSTILE]
    assert len(set(prefixes)) == len(HOSTILE)
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and a.startswith(b)]


def test_scripts_are_constant_and_run_no_text() -> None:
    texts = [script.text for script in read_scripts().values()]
    assert len(texts) > 20
    assert not [text for text in texts if re.search(r"\b(loadstring|dofile|setfenv|getfenv)\b|[^.\w]load\(", text)]
    assert {key for text in texts for key in re.findall(r"(?:KEYS|ARGV)\[(.*?)\]", text)} == {"1"}


def test_no_script_walks_the_keyspace_or_blocks() -> None:
    commands = {word for script in read_scripts().values() for word in re.findall(r"'([A-Z]{3,})'", script.text)}
    assert "HMGET" in commands
    assert not commands & {"KEYS", "SCAN", "HSCAN", "ZSCAN", "SSCAN", "EXPIRE", "PEXPIRE", "PEXPIREAT", "BLPOP", "WAIT"}


async def test_no_key_has_a_time_to_live(store: RedisStore, space: RedisSpace) -> None:
    await _live(store, "emails", "job")
    assert {await space.command("TTL", key) for key in await space.keys()} == {-1}


async def test_two_namespaces_do_not_meet(store: RedisStore, redis_url: str) -> None:
    other_space = RedisSpace(redis_url)
    other = other_space.store()
    await other.open()
    await _live(store, "emails", "job")
    await store.get(QueueControl).register(["emails"])
    assert await other.get(QueueControl).queues() == []
    assert await other.get(Inspection).get("emails", ["job"]) == [None]
    assert other.epoch != store.epoch
    await other.close()
    await other_space.delete()


async def test_pruned_jobs_leave_no_key_behind(store: RedisStore, space: RedisSpace) -> None:
    now = SystemClock().now()
    jobs, workers = store.get(Jobs), store.get(Workers)
    baseline = await space.keys()
    await workers.heartbeat("boot", ["emails"], info=b"", now=now)
    for start in range(0, 512, 128):
        ids = [f"job-{n}" for n in range(start, start + 128)]
        wanted = {id: Deduplication(id=id, ttl=1) for id in ids}
        await jobs.enqueue([_job(id, "emails", now, deduplication=wanted[id]) for id in ids], now=now, grace=0)
        await jobs.claim("emails", "boot", [Ticket(id, 1) for id in ids], now=now, keep_expired=Keep())
        outcomes = [
            Outcome(id=id, dispatch=1, owner="boot", ending=Ending.COMPLETED, result=b"r", history=b"h",
                    keep=Keep(age=1, count=100, group=id[-1]))
            for id in ids
        ]  # fmt: skip
        await jobs.finish("emails", outcomes, now=now, grace=0)
    await workers.leave("boot", ["emails"])
    for _ in range(20):
        pruned = await store.get(Retention).prune(["emails"], now=now + 10, adoption_window=5, limit=128)
    assert not pruned.more
    pruned = await store.get(Retention).prune(["emails"], now=now + 100, adoption_window=5, limit=1000)
    assert await space.keys() == baseline


async def test_a_thread_with_a_store_of_its_own_sees_the_same_jobs(store: RedisStore, space: RedisSpace) -> None:
    beats: list[bool] = []

    async def beat() -> None:
        mine = space.store()
        await mine.open()
        beats.append((await mine.get(Workers).heartbeat("boot", ["emails"], info=b"", now=SystemClock().now())).alive)
        await mine.close()

    thread = threading.Thread(target=lambda: asyncio.run(beat()))
    thread.start()
    await asyncio.to_thread(thread.join)
    rows = await store.get(Workers).workers(["emails"])
    assert beats == [True]
    assert [(row.boot, row.beat) for row in rows] == [("boot", 1)]


async def test_a_closed_store_is_unavailable_and_may_be_closed_again_and_reopened(store: RedisStore) -> None:
    epoch = store.epoch
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.ping()
    await store.open()
    await store.ping()
    assert store.epoch == epoch


def test_every_capability_is_offered(redis_url: str) -> None:
    store = RedisStore.from_url(redis_url, namespace="any")
    assert store.capabilities == frozenset(CAPABILITIES)
    assert all(isinstance(store.get(capability), capability) for capability in CAPABILITIES)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:hunter2/0",
        "redis://user:hunter2@host/hunter2",
        "redis://user:hunter2@host/0?hunter=hunter2",
        "redis://user:hunter2@host/0?timeout=hunter2",
        "redis://user:hunter2@host/0?timeout=0",
        "rediss://user:hunter2@host/0?ssl_cert_reqs=none",
        "rediss://user:hunter2@host/0?ssl_check_hostname=false",
        "redis://user:hunter2@host/0?ssl_ca_certs=/hunter2",
        "http://user:hunter2@host/0",
        "redis://user:hunter2@host,other/0",
        "redis://user:hunt/er2hunter2@host/0",
        "redis://user:hunter?2hunter2@host/0",
        "redis://user:hunter2@host:70000/0",
        "redis+ring://user:hunter2@host/0",
        "redis+cluster://user:hunter2@host,,other",
        "redis+cluster://user:hunter2@host/1",
        "redis+cluster://user:hunter2@host?sentinel_password=hunter2",
        "redis+sentinel://user:hunter2@host/shop/hunter2",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreRefused) as refused:
        RedisStore.from_url(url, namespace="any")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
