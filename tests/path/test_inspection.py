"""Looking at a queue, and cleaning it up: every method of Queue that does not add."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from callboard import Callboard, InvalidJob, JobInfo, Queue
from callboard.runtime.testing import running, settled

STATES = ("waiting", "delayed", "waiting-children", "active", "completed", "failed", "cancelled", "expired")


@pytest.fixture
async def queue(app: Callboard) -> Queue:
    """Three jobs completed, two failed, one cancelled, one expired; then four waiting, three delayed."""

    @app.task(queue="emails", name="send")
    async def send(i: int) -> int:
        return i * 10

    @app.task(queue="emails", name="broken")
    async def broken(i: int) -> None:
        raise ValueError(f"broken {i}")

    queue = app.queue("emails")
    expired = await queue.add("send", [0], ttl=0.001, job_id="x1")
    cancelled = await queue.add("send", [0], job_id="k1")
    await queue.cancel_job(cancelled)
    await asyncio.sleep(0.01)
    async with running(app, concurrency=1):
        for i in range(3):
            await queue.handle(await queue.add("send", [i], job_id=f"c{i}")).result(5)
        for i in range(2):
            await queue.add("broken", [i], job_id=f"f{i}")
            await settled(app, "emails")
        assert await queue.get_job_state(expired) == "expired"
    for i in range(4):
        await queue.add("send", [i], job_id=f"w{i}")
        await asyncio.sleep(0.002)
    await queue.add_bulk([{"task_id": "send", "args": [i], "delay": 100 + i, "job_id": f"d{i}"} for i in range(3)])
    return queue


def ids(jobs: list[JobInfo]) -> list[str]:
    return [job.id for job in jobs]


async def test_counts_by_state(queue: Queue) -> None:
    counts = {
        "waiting": 4, "delayed": 3, "waiting-children": 0, "active": 0, "completed": 3, "failed": 2, "cancelled": 1,
        "expired": 1,
    }  # fmt: skip
    assert await queue.get_job_counts() == counts
    assert await queue.get_job_counts("waiting", "failed") == {"waiting": 4, "failed": 2}
    assert await queue.get_job_counts("paused", "prioritized") == {"paused": 0, "prioritized": 0}
    assert await queue.get_job_count_by_types("waiting", "delayed") == 7
    assert await queue.get_job_count_by_types() == 14
    assert await queue.count() == 7
    assert await queue.queue_stats() == {"waiting": 4, "delayed": 3, "failed": 2}
    with pytest.raises(InvalidJob, match="'done' is no state of a job; states are: waiting, delayed"):
        await queue.get_job_counts("done")


async def test_one_job(queue: Queue) -> None:
    job = await queue.get_job("f1")
    assert job is not None
    assert job.error is not None
    assert (job.id, job.queue, job.task, job.state, job.args) == ("f1", "emails", "broken", "failed", [1])
    assert (job.error.message, job.result, job.worker) == ("broken 1", None, None)
    assert job.finished_at is not None
    assert job.claimed_at is not None
    assert job.created_at <= job.claimed_at <= job.finished_at <= datetime.now(UTC)
    assert await queue.get_job_state("w0") == "waiting"
    assert await queue.get_job_result("c2") == 20
    assert await queue.get_job_result("w0") is None
    assert await queue.get_job("nobody") is None
    assert await queue.get_job_state("nobody") is None
    assert await queue.get_job_result("nobody") is None


async def test_a_view_of_a_job_is_immutable_and_has_a_json_form(queue: Queue) -> None:
    job = await queue.get_job("f1")
    assert job is not None
    with pytest.raises(AttributeError):
        job.state = "waiting"  # type: ignore[misc, assignment]
    plain = job.to_json()
    assert (plain["id"], plain["state"], plain["error"]["message"]) == ("f1", "failed", "broken 1")
    assert datetime.fromisoformat(plain["created_at"]) == job.created_at


async def test_jobs_by_state_newest_first(queue: Queue) -> None:
    assert ids(await queue.get_waiting()) == ["w3", "w2", "w1", "w0"]
    assert ids(await queue.get_completed()) == ["c2", "c1", "c0"]
    assert ids(await queue.get_failed()) == ["f1", "f0"]
    assert ids(await queue.get_delayed()) == ["d2", "d1", "d0"]
    assert ids(await queue.get_active()) == ids(await queue.get_waiting_children()) == []
    assert ids(await queue.list_jobs("expired")) == ["x1"]
    assert ids(await queue.get_jobs("cancelled")) == ["k1"]


async def test_ranges_are_inclusive_and_run_over_the_states_in_their_order(queue: Queue) -> None:
    assert ids(await queue.get_waiting(0, 1)) == ["w3", "w2"]
    assert ids(await queue.get_waiting(1, 1)) == ["w2"]
    assert ids(await queue.get_waiting(2)) == ["w1", "w0"]
    assert ids(await queue.get_waiting(9)) == []
    both = ["waiting", "delayed"]
    assert ids(await queue.get_jobs(both, asc=True)) == ["w0", "w1", "w2", "w3", "d0", "d1", "d2"]
    assert ids(await queue.get_jobs(both, 3, 4, asc=True)) == ["w3", "d0"]
    assert ids(await queue.get_jobs(both, 3, 4)) == ["w0", "d2"]
    assert ids(await queue.get_jobs(["delayed", "waiting"], 2, 3, asc=True)) == ["d2", "w0"]
    assert ids(await queue.get_jobs(["paused", "waiting", "prioritized"], 0, 0)) == ["w3"]
    assert ids(await queue.get_jobs(both, 5, 2)) == []
    assert len(await queue.get_jobs()) == 14
    with pytest.raises(ValueError, match=r"start must be 0 or more and end -1 or more, not start=-1"):
        await queue.get_jobs(both, -1)


async def test_delayed_jobs_are_listed_with_their_times_the_next_one_first(queue: Queue) -> None:
    listed = await queue.list_delayed()
    assert [entry.job_id for entry in listed] == ["d0", "d1", "d2"]
    assert [entry.payload["args"] for entry in listed] == [[0], [1], [2]]
    soon = datetime.now(UTC) + timedelta(seconds=100)
    assert all(abs((entry.run_at - soon).total_seconds()) < 10 for entry in listed)


async def test_a_delayed_job_can_be_removed_by_its_own_method_and_no_other(queue: Queue) -> None:
    assert await queue.remove_delayed("d1") is True
    assert await queue.remove_delayed("d1") is False
    assert await queue.remove_delayed("w1") is False
    assert [entry.job_id for entry in await queue.list_delayed()] == ["d0", "d2"]


async def test_a_delayed_job_can_be_given_another_time(queue: Queue) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    assert await queue.reschedule_delayed("d1", run_at=moment) is True
    assert await queue.reschedule_delayed("d2", delay=20) is True
    entries = await queue.list_delayed()
    assert [entry.job_id for entry in entries] == ["d2", "d0", "d1"]
    assert entries[2].run_at == moment
    assert abs((entries[0].run_at - datetime.now(UTC)).total_seconds() - 20) < 10
    for other in ("w1", "c0", "nobody"):
        assert await queue.reschedule_delayed(other, delay=20) is False
    for nothing in ({}, {"delay": 1, "run_at": moment}):
        with pytest.raises(InvalidJob, match="give delay"):
            await queue.reschedule_delayed("d0", **nothing)  # type: ignore[arg-type]


async def test_a_promoted_job_waits_for_a_worker(queue: Queue) -> None:
    assert await queue.promote_job("d1") is True
    assert await queue.promote_job("d1") is False
    assert await queue.promote_job("c0") is False
    assert await queue.get_job_state("d1") == "waiting"
    assert [entry.job_id for entry in await queue.list_delayed()] == ["d0", "d2"]


async def test_any_job_that_does_not_run_can_be_removed(queue: Queue) -> None:
    for job_id in ("w0", "d0", "c0", "f0", "k1", "x1"):
        assert await queue.remove_job(job_id) is True
        assert await queue.get_job(job_id) is None
    assert await queue.remove_job("nobody") is False
    assert await queue.get_job_count_by_types() == 8


async def test_a_removed_job_does_not_run_though_its_ticket_was_sent(app: Callboard, queue: Queue) -> None:
    await queue.remove_job("w1")
    async with running(app):
        async with asyncio.timeout(5):
            while (await queue.queue_counts()).waiting:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
    assert sorted(ids(await queue.get_completed())) == ["c0", "c1", "c2", "w0", "w2", "w3"]


async def test_a_running_job_is_not_removed_cleaned_or_obliterated(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.task(queue="emails", name="slow")
    async def slow() -> str:
        began.set()
        await may_end.wait()
        return "done"

    queue = app.queue("emails")
    async with running(app):
        job = await slow.enqueue()
        await began.wait()
        assert ids(await queue.get_active()) == [job.id]
        with pytest.raises(RuntimeError, match="is running; cancel it first"):
            await queue.remove_job(job.id)
        with pytest.raises(InvalidJob, match="running jobs can't be removed"):
            await queue.clean_jobs(state="active")
        with pytest.raises(RuntimeError, match="has 1 running jobs"):
            await queue.obliterate()
        assert await queue.drain(include_delayed=True) == []
        assert await queue.retry_job(job.id) is False
        may_end.set()
        assert await job.result(5) == "done"


async def test_drain_removes_what_waits_and_answers_its_ids(queue: Queue) -> None:
    assert sorted(await queue.drain()) == ["w0", "w1", "w2", "w3"]
    assert await queue.get_job_counts("waiting", "delayed", "completed") == {"waiting": 0, "delayed": 3, "completed": 3}
    assert sorted(await queue.drain(include_delayed=True)) == ["d0", "d1", "d2"]
    assert await queue.count() == 0


async def test_clean_jobs_removes_the_oldest_of_a_state_up_to_a_limit(queue: Queue) -> None:
    assert await queue.clean_jobs(limit=2) == ["c0", "c1"]
    assert await queue.clean_jobs(grace=60, state="failed") == []
    assert await queue.clean_jobs(state="failed") == ["f0", "f1"]
    assert await queue.clean_jobs(state="waiting", limit=1) == ["w0"]
    assert sorted(await queue.clean_jobs(state="delayed")) == ["d0", "d1", "d2"]
    assert await queue.get_job_count_by_types() == 6


async def test_clean_goes_by_the_time_of_the_end_not_of_the_making(app: Callboard) -> None:
    @app.task(queue="emails", name="t")
    async def t() -> None: ...

    queue = app.queue("emails")
    job_id = await queue.add("t")
    await asyncio.sleep(0.3)
    made = datetime.now(UTC).timestamp()
    async with running(app):
        await queue.handle(job_id).result(5)
    assert await queue.clean("completed", older_than=made) == []
    assert await queue.clean_jobs(grace=30) == []
    assert await queue.clean("completed", older_than=datetime.now(UTC).timestamp() + 1) == [job_id]


async def test_clean_without_a_moment_removes_a_whole_state(queue: Queue) -> None:
    assert sorted(await queue.clean("completed")) == ["c0", "c1", "c2"]
    assert sorted(await queue.clean("delayed")) == ["d0", "d1", "d2"]
    assert sorted(await queue.clean("waiting")) == ["w0", "w1", "w2", "w3"]
    with pytest.raises(InvalidJob, match="'done' is no state"):
        await queue.clean("done")


async def test_more_jobs_than_one_page_are_listed_and_removed_whole(app: Callboard) -> None:
    queue = app.queue("emails")
    added = await queue.add_bulk([{"task_id": "t", "args": [i]} for i in range(2500)])
    listed = await queue.get_jobs("waiting", asc=True)
    assert sorted(ids(listed)) == sorted(added)
    assert len(await queue.get_waiting(990, 1509)) == 520
    assert len(await queue.clean_jobs(state="waiting", limit=1200)) == 1200
    assert len(await queue.drain()) == 1300


async def test_only_final_jobs_can_be_retried_by_hand(app: Callboard, queue: Queue) -> None:
    assert await queue.retry_job("w0") is False
    assert await queue.retry_job("d0") is False
    assert await queue.retry_job("nobody") is False
    assert await queue.retry_job("c1") is True
    assert await queue.retry_job("k1") is True
    assert await queue.get_job_state("c1") == "waiting"
    async with running(app):
        assert await queue.handle("c1").result(5) == 10
        assert await queue.handle("k1").result(5) == 0


async def test_an_expired_job_that_is_retried_by_hand_runs(app: Callboard, queue: Queue) -> None:
    assert await queue.retry_job("x1") is True
    async with running(app):
        assert await queue.handle("x1").result(5) == 0


async def test_obliterate_leaves_nothing_and_the_queue_can_be_used_again(app: Callboard, queue: Queue) -> None:
    assert await queue.obliterate() == 14
    assert await queue.get_job_count_by_types() == 0
    assert await app.connections.broker.depth(app.connections.names.job_queue("emails")) is None
    assert await queue.is_paused() is False
    async with running(app):
        assert await queue.handle(await queue.add("send", [5], job_id="w0")).result(5) == 50


async def test_obliterate_by_force_cancels_what_runs_and_a_worker_serves_the_queue_on(app: Callboard) -> None:
    began = asyncio.Event()

    @app.task(queue="emails", name="slow")
    async def slow() -> None:
        began.set()
        await asyncio.sleep(600)

    @app.task(queue="emails", name="send")
    async def send() -> str:
        return "sent"

    queue = app.queue("emails")
    async with running(app):
        job = await slow.enqueue()
        await began.wait()
        await queue.add("send", delay=60)
        await queue.obliterate(force=True)
        async with asyncio.timeout(5):
            while await queue.get_job_state(job.id) not in ("cancelled", None):
                await asyncio.sleep(0.01)
        assert await queue.count() == 0
        assert await (await send.enqueue()).result(5) == "sent"


async def test_reading_never_changes_anything(queue: Queue) -> None:
    await queue.app.connections.dispatcher.flush()  # afterwards every job is noted as published
    before = [job.to_json() for job in await queue.get_jobs()]
    for state in STATES:
        await queue.list_jobs(state)
    await queue.get_job_counts()
    await queue.list_delayed()
    await queue.get_job("w0")
    assert [job.to_json() for job in await queue.get_jobs()] == before
