from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard import Callboard, InvalidJob
from callboard.metadata.contract import Admission
from callboard.runtime.testing import running, settled


@pytest.mark.parametrize(
    ("job_id", "error", "complaint"),
    [
        ("", InvalidJob, "job_id must not be empty"),
        ("42", InvalidJob, "job_id must not be all digits: '42'; .*'order-42'"),
        ("²", InvalidJob, "job_id must not be all digits: '²'"),
        ("a:b", InvalidJob, "job_id must not contain ':': 'a:b'"),
        ("a\nb", InvalidJob, r"job_id must not contain control characters: 'a\\nb'"),
        ("a\0", InvalidJob, "job_id must not contain control characters"),
        ("x" * 257, InvalidJob, "job_id takes 257 bytes, at most 256"),
        ("ä" * 129, InvalidJob, "job_id takes 258 bytes, at most 256"),
        ("\ud800", InvalidJob, "job_id"),
        (42, TypeError, "job_id must be a string, not 42"),
        (b"a", TypeError, "job_id must be a string, not b'a'"),
    ],
    ids=repr,
)
async def test_a_refused_id_is_named_with_its_value_wherever_it_is_given(
    app: Callboard, job_id: Any, error: type[Exception], complaint: str
) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    queue = app.queue("default")
    with pytest.raises(error, match=complaint):
        t.options(job_id=job_id)
    with pytest.raises(error, match=complaint):
        await queue.add("t", job_id=job_id)
    with pytest.raises(error, match=complaint):
        await queue.add_bulk([{"task_id": "t", "jobId": job_id}])
    with pytest.raises(error, match=complaint):
        await queue.enqueue({"task_id": "t", "job_id": job_id})
    assert await queue.count() == 0


@pytest.mark.parametrize("job_id", ["a", "42a", "-1", "1.5", "ids", "meta", "ä b/c", "{x}", "x" * 256])
async def test_any_other_text_is_an_id(app: Callboard, job_id: str) -> None:
    @app.task(name="t")
    async def t() -> str:
        return "ran"

    async with running(app):
        job = await t.options(job_id=job_id).enqueue()
        assert job.id == job_id
        assert await job.result(5) == "ran"


async def test_a_second_job_of_the_same_id_is_the_first_one_and_runs_once(app: Callboard) -> None:
    runs: list[str] = []

    @app.task(name="t")
    async def t(which: str) -> None:
        runs.append(which)

    queue = app.queue("default")
    first = await t.options(job_id="one").enqueue("first")
    second = await t.options(job_id="one").enqueue("second")
    assert (first.admission, second.admission, second.id) == (Admission.CREATED, Admission.EXISTING, "one")
    assert await queue.add("t", ["third"], job_id="one") == "one"
    assert await queue.add_bulk([{"task_id": "t", "args": [x], "jobId": "one"} for x in ("a", "b")]) == ["one", "one"]
    async with running(app):
        await settled(app, "default")
        assert (await t.options(job_id="one").enqueue("after the end")).admission is Admission.EXISTING
        await settled(app, "default")
    assert runs == ["first"]


async def test_an_id_belongs_to_its_queue(app: Callboard) -> None:
    assert await app.queue("a").add("t", [1], job_id="one") == "one"
    assert await app.queue("b").add("t", [2], job_id="one") == "one"
    jobs = [await app.queue(name).get_job("one") for name in ("a", "b")]
    assert [job.args for job in jobs if job] == [[1], [2]]


async def test_many_producers_of_one_id_make_one_job(app: Callboard) -> None:
    runs: list[int] = []

    @app.task(name="t")
    async def t(i: int) -> None:
        runs.append(i)

    async with running(app):
        jobs = await asyncio.gather(*(t.options(job_id="one").enqueue(i) for i in range(50)))
        await settled(app, "default")
    assert [job.admission for job in jobs].count(Admission.CREATED) == 1
    assert len(runs) == 1


async def test_an_id_whose_job_was_removed_can_be_used_again(app: Callboard) -> None:
    @app.task(name="t")
    async def t(which: str) -> str:
        return which

    queue = app.queue("default")
    async with running(app):
        assert await (await t.options(job_id="one").enqueue("first")).result(5) == "first"
        assert await queue.remove_job("one") is True
        job = await t.options(job_id="one").enqueue("second")
        assert job.admission is Admission.CREATED
        assert await job.result(5) == "second"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 129, None, 5], ids=repr)
async def test_a_queue_name_that_cannot_travel_is_refused(app: Callboard, name: Any) -> None:
    with pytest.raises(InvalidJob, match="queue must be 1 to 128 of the characters"):
        app.queue(name)


@pytest.mark.parametrize("name", ["a:b", "a.b", "a-b_c", "x" * 128, "workers", "1"])
async def test_a_queue_keeps_the_name_it_was_given(app: Callboard, name: str) -> None:
    @app.task(name="t", queue=name)
    async def t() -> str:
        return "ran"

    async with running(app):
        job = await t.enqueue()
        assert await job.result(5) == "ran"
    assert (job.queue, [info.id for info in await app.queue(name).get_completed()]) == (name, [job.id])


async def test_ids_made_here_sort_by_the_time_of_their_making(app: Callboard) -> None:
    ids = []
    for _ in range(5):
        ids.append(await app.queue("default").add("t"))
        await asyncio.sleep(0.002)
    assert ids == sorted(ids)
    assert len(set(ids)) == 5
