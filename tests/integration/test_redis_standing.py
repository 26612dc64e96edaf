"""Standing claims on a Redis whose users may not do all, and where others listen too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from callboard import Callboard
from callboard.metadata.contract import Claimed, Inspection, Jobs, Ticket, Verdict, Workers
from callboard.metadata.errors import StoreError
from callboard.metadata.job import Job, Keep, NewJob, State
from callboard.metadata.redis import RedisStore
from callboard.metadata.standing import Handed, Hearing, StandingClaims
from callboard.runtime.clock import SystemClock
from callboard.runtime.testing import running
from integration.redis_private import private_redis
from redis_space import RedisSpace

QUEUE, BOOT = "emails", "boot"
RIGHTS = "on", ">secret", "~*", "resetchannels", "+@all"
FORBIDDEN = pytest.mark.parametrize("right", ["resetchannels", "-@pubsub", "-publish"])
NOW = SystemClock().now()


class Scene:
    """A worker that stands for jobs, at a Redis with a user `quiet`, who may use no channel. `heard`: what it was
    told."""

    hearing: Hearing

    def __init__(self, url: str) -> None:
        self.space = RedisSpace(url)
        self.quiet_url = url.replace("redis://", "redis://quiet:secret@")
        self.worker = self.space.store()
        self.producer = self.worker
        self.heard: list[Handed] = []

    @property
    def channel(self) -> str:
        return f"{self.space.namespace}:{{{QUEUE}}}:handed:{BOOT}"

    async def stand(self, jobs: int = 5) -> None:
        assert await self.worker.get(StandingClaims).stand(QUEUE, BOOT, jobs=jobs)

    async def add(self, id: str) -> State:
        job = NewJob(id=id, queue=QUEUE, task="task", payload=b"{}", created_at=NOW)
        (made,) = await self.producer.get(Jobs).enqueue([job], now=NOW, grace=0)
        return made.state

    async def claim(self, id: str) -> Claimed:
        (claimed,) = await self.worker.get(Jobs).claim(QUEUE, BOOT, [Ticket(id, 1)], now=NOW, keep_expired=Keep())
        return claimed

    async def job(self, id: str) -> Job:
        (job,) = await self.worker.get(Inspection).get(QUEUE, [id])
        assert job is not None
        return job

    async def ids(self) -> list[str]:
        """Of what the worker was told."""
        await self.hearing.sync()
        return [handed.id for handed in self.heard]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(private_redis(tmp_path))
        scene = Scene(server.url)
        await scene.space.command("ACL", "SETUSER", "quiet", *RIGHTS)
        await scene.worker.open()
        stack.push_async_callback(scene.worker.close)
        await scene.worker.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=NOW)
        scene.hearing = await scene.worker.get(StandingClaims).hear(
            BOOT, [QUEUE], told=scene.heard.append, deaf=lambda: None
        )
        stack.push_async_callback(scene.hearing.close)
        yield scene


async def _quiet(scene: Scene) -> RedisStore:
    store = RedisStore.from_url(scene.quiet_url, namespace=scene.space.namespace)
    await store.open()
    return store


async def test_a_worker_whose_user_may_hear_nothing_is_told_so(scene: Scene) -> None:
    store = await _quiet(scene)
    with pytest.raises(StoreError, match="does not let this user do what is needed"):
        await store.get(StandingClaims).hear("another", [QUEUE], told=scene.heard.append, deaf=lambda: None)
    await store.close()


async def test_such_a_worker_works_by_tickets_and_says_so_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    app = Callboard(broker="memory://", store=scene.quiet_url, namespace=scene.space.namespace)

    @app.task(name="t")
    async def t(i: int) -> int:
        return i

    async with running(app, actors=("worker",)):
        assert [await (await t.enqueue(i)).result(20) for i in range(5)] == [0, 1, 2, 3, 4]
    told = [record.getMessage() for record in caplog.records if "tickets alone" in record.getMessage()]
    assert len(told) == 1


@FORBIDDEN
async def test_a_producer_whose_user_may_publish_nothing_leaves_the_job_to_its_ticket(scene: Scene, right: str) -> None:
    await scene.space.command("ACL", "SETUSER", "quiet", "allchannels", right)
    await scene.stand()
    scene.producer = await _quiet(scene)
    assert await scene.add("a") is State.WAITING
    job = await scene.job("a")
    assert (job.state, job.dispatch, job.attempts) == (State.WAITING, 1, 0)
    assert await scene.ids() == []
    assert (await scene.claim("a")).verdict is Verdict.CLAIMED
    await scene.producer.close()


@FORBIDDEN
async def test_and_does_not_keep_the_jobs_of_others_from_being_handed_over(scene: Scene, right: str) -> None:
    await scene.space.command("ACL", "SETUSER", "quiet", "allchannels", right)
    await scene.stand()
    scene.producer = await _quiet(scene)
    await scene.add("a")
    await scene.claim("a")
    await scene.producer.close()
    scene.producer = scene.worker
    assert await scene.add("b") is State.ACTIVE
    assert await scene.ids() == ["b"]


@pytest.mark.parametrize("pattern", [False, True], ids=["by its channel", "by a pattern"])
async def test_what_is_told_to_a_worker_is_its_own_though_others_hear_it_too(scene: Scene, pattern: bool) -> None:
    async with asyncio.timeout(30), Redis.from_url(scene.space.url) as client, client.pubsub() as other:
        await (other.psubscribe("*") if pattern else other.subscribe(scene.channel))
        await other.parse_response()
        await scene.stand()
        state = await scene.add("a")
        told = await scene.ids()
        assert (state is State.ACTIVE) is (told == ["a"]), f"the store says {state}, and the worker was told {told}"


async def test_a_boot_that_hears_no_more_is_handed_nothing_though_somebody_listens_by_a_pattern(scene: Scene) -> None:
    async with asyncio.timeout(30), Redis.from_url(scene.space.url) as client, client.pubsub() as other:
        await other.psubscribe("*")
        await other.parse_response()
        await scene.stand()
        await scene.hearing.close()
        assert await scene.add("a") is State.WAITING
