from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard import Callboard, InvalidJob, Queue
from callboard.metadata.contract import Admission
from callboard.runtime.testing import running, settled


async def runs_of(app: Callboard) -> list[str]:
    return [job.args[0] for job in await app.queue("default").get_jobs("completed", asc=True)]


def sync_task(app: Callboard) -> Any:
    @app.task(name="sync")
    async def sync(which: str) -> str:
        return which

    return sync


async def test_one_job_at_a_time_stands_for_a_deduplication_id_until_it_is_final(app: Callboard) -> None:
    sync = sync_task(app).options(deduplication={"id": "customer:7"})
    first = await sync.enqueue("first")
    second = await sync.enqueue("second")
    assert (second.id, second.admission) == (first.id, Admission.DEDUPLICATED)
    async with running(app):
        assert await second.result(5) == "first"
        third = await sync.enqueue("third")
        assert third.admission is Admission.CREATED
        assert await third.result(5) == "third"
    assert await runs_of(app) == ["first", "third"]


@pytest.mark.parametrize("ending", ["failed", "cancelled", "expired", "removed"])
async def test_a_deduplication_id_without_a_window_is_free_however_its_job_ended(app: Callboard, ending: str) -> None:
    @app.task(name="broken")
    async def broken() -> None:
        raise ValueError

    call = broken.options(deduplication={"id": "d"}, ttl=0.01 if ending == "expired" else None)
    first = await call.enqueue()
    if ending == "cancelled":
        await first.cancel()
    elif ending == "removed":
        await app.queue("default").remove_job(first.id)
    else:
        await asyncio.sleep(0.02)
        async with running(app):
            await settled(app, "default")
        assert await first.state() == ending
    assert (await call.enqueue()).admission is Admission.CREATED


async def test_a_throttle_admits_one_job_a_window_even_when_it_has_ended(app: Callboard) -> None:
    sync = sync_task(app).options(deduplication={"id": "d", "ttl": 1.5})
    async with running(app):
        first = await sync.enqueue("first")
        await first.result(5)
        assert (await sync.enqueue("second")).admission is Admission.DEDUPLICATED
        await until_free(app.queue("default"), "d")
        assert (await sync.enqueue("third")).admission is Admission.CREATED
        await settled(app, "default")
    assert await runs_of(app) == ["first", "third"]


async def test_a_throttled_newcomer_does_not_prolong_the_window(app: Callboard) -> None:
    loop = asyncio.get_running_loop()
    sync = sync_task(app).options(deduplication={"id": "d", "ttl": 0.4})
    began = loop.time()
    await sync.enqueue("first")
    while await app.queue("default").get_deduplication_job_id("d"):
        await sync.enqueue("again")
        await asyncio.sleep(0.02)
    assert loop.time() - began > 0.35


async def test_extend_starts_the_window_anew_with_each_newcomer(app: Callboard) -> None:
    loop = asyncio.get_running_loop()
    sync = sync_task(app).options(deduplication={"id": "d", "ttl": 0.4, "extend": True})
    await sync.enqueue("first")
    began = loop.time()
    while loop.time() - began < 0.8:
        assert (await sync.enqueue("again")).admission is Admission.DEDUPLICATED
        await asyncio.sleep(0.02)
    await until_free(app.queue("default"), "d")


async def test_a_debounce_runs_the_newest_of_the_delayed_jobs_alone(app: Callboard) -> None:
    queue = app.queue("default")
    sync = sync_task(app).options(
        delay=0.4, deduplication={"id": "search", "ttl": 0.4, "extend": True, "replace": True}
    )
    jobs = [await sync.enqueue(which) for which in ("a", "ab", "abc")]
    assert [job.admission for job in jobs] == [Admission.CREATED, Admission.REPLACED, Admission.REPLACED]
    assert len({job.id for job in jobs}) == 3
    assert [info.args for info in await queue.get_delayed()] == [["abc"]]
    assert await queue.get_deduplication_job_id("search") == jobs[-1].id
    assert [await queue.get_job(job.id) for job in jobs[:2]] == [None, None]
    async with running(app):
        assert await jobs[-1].result(5) == "abc"
    assert await runs_of(app) == ["abc"]


async def test_a_job_that_is_not_delayed_any_more_is_not_replaced(app: Callboard) -> None:
    sync = sync_task(app)
    first = await sync.options(deduplication={"id": "d"}).enqueue("first")
    newcomer = await sync.options(delay=1, deduplication={"id": "d", "replace": True}).enqueue("second")
    assert (newcomer.id, newcomer.admission) == (first.id, Admission.DEDUPLICATED)


async def test_many_producers_in_one_window_make_one_job(app: Callboard) -> None:
    sync = sync_task(app).options(deduplication={"id": "d", "ttl": 60})
    async with running(app):
        jobs = await asyncio.gather(*(sync.enqueue(str(i)) for i in range(100)))
        await settled(app, "default")
    assert len({job.id for job in jobs}) == 1
    assert len(await runs_of(app)) == 1


async def test_the_helpers_name_the_holder_and_free_it_without_touching_the_job(app: Callboard) -> None:
    queue = app.queue("default")
    assert await queue.get_deduplication_job_id("d") is None
    job_id = await queue.add("t", deduplication={"id": "d"})
    assert await queue.get_deduplication_job_id("d") == job_id
    assert await queue.get_debounce_job_id("d") == job_id
    assert await queue.remove_deduplication_key("d") is True
    assert await queue.remove_deduplication_key("d") is False
    assert await queue.get_deduplication_job_id("d") is None
    assert await queue.get_job_state(job_id) == "waiting"
    assert await queue.add("t", deduplication={"id": "d"}) != job_id


async def test_a_deduplication_id_belongs_to_its_queue(app: Callboard) -> None:
    first = await app.queue("a").add("t", deduplication={"id": "d"})
    assert await app.queue("b").add("t", deduplication={"id": "d"}) != first


async def test_debounce_is_another_name_of_deduplication(app: Callboard) -> None:
    queue = app.queue("default")
    first = await queue.add("t", debounce={"id": "d"})
    assert await queue.add("t", deduplication={"id": "d"}) == first
    assert await queue.add_bulk([{"task_id": "t", "debounce": {"id": "d"}}]) == [first]


async def test_within_one_bulk_the_first_job_of_a_deduplication_id_stands_for_the_others(app: Callboard) -> None:
    item = {"task_id": "t", "deduplication": {"id": "d"}}
    ids = await app.queue("default").add_bulk([item, item, {"task_id": "t"}, item])
    assert ids[0] == ids[1] == ids[3] != ids[2]


async def test_a_job_put_under_a_taken_id_does_not_take_a_deduplication_id(app: Callboard) -> None:
    queue = app.queue("default")
    await queue.add("t", [1], job_id="one")
    assert await queue.add("t", [2], job_id="one", deduplication={"id": "d"}) == "one"
    assert await queue.get_deduplication_job_id("d") is None


@pytest.mark.parametrize(
    ("value", "error", "complaint"),
    [
        ({}, InvalidJob, r"deduplication\.id must be .*not None"),
        ({"id": ""}, InvalidJob, r"deduplication\.id must be .*not ''"),
        ({"id": 5}, InvalidJob, r"deduplication\.id must be .*not 5"),
        ({"id": "d", "ttl": 0}, InvalidJob, r"deduplication\.ttl must be more than 0"),
        ({"id": "d", "ttl": -1}, InvalidJob, r"deduplication\.ttl=-1: must not be negative"),
        ({"id": "d", "ttl": "1"}, InvalidJob, r"deduplication\.ttl='1': wants seconds"),
        ({"id": "d", "extend": True}, InvalidJob, r"deduplication\.extend needs a ttl"),
        ({"id": "d", "replace": "yes"}, InvalidJob, r"deduplication\.replace must be true or false, not 'yes'"),
        ({"id": "d", "tll": 5}, InvalidJob, r"deduplication has no member 'tll'"),
        ("d", TypeError, r"deduplication must be a mapping such as \{'id': 'customer-7'\}, not 'd'"),
    ],
    ids=repr,
)
async def test_a_deduplication_that_makes_no_sense_is_refused(
    app: Callboard, value: Any, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        await app.queue("default").add("t", deduplication=value)
    with pytest.raises(error, match=complaint):
        await app.queue("default").add("t", debounce=value)


async def until_free(queue: Queue, deduplication_id: str) -> None:
    async with asyncio.timeout(5):
        while await queue.get_deduplication_job_id(deduplication_id):
            await asyncio.sleep(0.01)
