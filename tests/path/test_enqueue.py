from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from callboard import Callboard, InvalidJob, PayloadTooLarge
from callboard.metadata.contract import Admission
from callboard.runtime.arguments import ArgumentsInvalid
from callboard.runtime.testing import running, settled
from path.place import Place


async def test_a_call_of_a_task_becomes_a_job_that_runs_once_with_its_arguments(app: Callboard) -> None:
    calls: list[tuple[str, str]] = []

    @app.task(queue="emails", name="emails.send")
    async def send(to: str, *, subject: str) -> str:
        calls.append((to, subject))
        return f"sent to {to}"

    async with running(app):
        job = await send.enqueue("a@b.c", subject="hi")
        assert await job.result(5) == "sent to a@b.c"
    assert job.admission is Admission.CREATED
    assert calls == [("a@b.c", "hi")]


async def test_calling_a_task_calls_the_function_without_a_job(app: Callboard) -> None:
    @app.task(name="double")
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8
    assert await app.queue("default").count() == 0


async def test_the_options_of_a_call_are_found_on_its_record(app: Callboard) -> None:
    @app.task(queue="emails", name="send", retries=1, priority=5)
    async def send(to: str) -> None: ...

    before = datetime.now(UTC)
    job = await send.options(
        job_id="welcome-42", delay=60, priority=1, ttl=120, meta={"tenant": "t1"}, retries=7, backoff=2.5, timeout=3
    ).enqueue("a@b.c")
    info = await app.queue("emails").get_job("welcome-42")
    assert info is not None
    assert (job.id, info.state, info.priority, info.meta, info.args) == (
        "welcome-42",
        "delayed",
        1,
        {"tenant": "t1"},
        ["a@b.c"],
    )
    assert info.run_at is not None
    assert info.expires_at is not None
    assert timedelta(seconds=59) < info.run_at - before < timedelta(seconds=61)
    assert timedelta(seconds=119) < info.expires_at - before < timedelta(seconds=121)
    (delayed,) = await app.queue("emails").list_delayed()
    assert (delayed.payload["retries"], delayed.payload["backoff"], delayed.payload["timeout"]) == (7, 2.5, 3000)


async def test_a_call_can_go_to_another_queue_than_its_task_names(app: Callboard) -> None:
    @app.task(queue="emails", name="where")
    async def where() -> str:
        return "here"

    async with running(app, queues=["emails", "slow"]):
        job = await where.options(queue="slow").enqueue()
        assert await job.result(5) == "here"
    assert job.queue == "slow"
    assert await app.queue("emails").get_job(job.id) is None


async def test_a_delayed_job_does_not_start_before_its_time(app: Callboard) -> None:
    @app.task(name="moment")
    async def moment() -> float:
        return datetime.now(UTC).timestamp()

    async with running(app):
        before = datetime.now(UTC)
        by_delay = await moment.options(delay=0.5).enqueue()
        by_moment = await moment.options(run_at=before + timedelta(seconds=0.4)).enqueue()
        assert await by_delay.result(5) - before.timestamp() >= 0.5
        assert await by_moment.result(5) - before.timestamp() >= 0.4


async def test_a_moment_that_has_passed_means_now(app: Callboard) -> None:
    @app.task(name="nothing")
    async def nothing() -> None: ...

    job = await nothing.options(run_at=datetime(2020, 1, 1, tzinfo=UTC)).enqueue()
    assert await job.state() == "waiting"


async def test_a_queue_takes_jobs_by_the_name_of_their_task_alone(app: Callboard) -> None:
    job_id = await app.queue("emails").add("their.task", ["a", 1], {"k": None}, priority=2)
    info = await app.queue("emails").get_job(job_id)
    assert info is not None
    assert (info.task, info.args, info.kwargs, info.priority) == ("their.task", ["a", 1], {"k": None}, 2)


async def test_the_options_of_a_registered_task_hold_for_jobs_added_by_its_name(app: Callboard) -> None:
    @app.task(queue="emails", name="send", priority=2, ttl=60)
    async def send() -> None: ...

    info = await app.queue("other").get_job(await app.queue("other").add("send"))
    assert info is not None
    assert (info.queue, info.priority, info.expires_at is not None) == ("other", 2, True)


async def test_enqueue_send_and_delay_take_one_mapping(app: Callboard) -> None:
    queue = app.queue("emails")
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await queue.get_job_state(await queue.enqueue({"task_id": "t"})) == "waiting"
    assert await queue.get_job_state(await queue.send({"task_id": "t"})) == "waiting"
    assert await queue.get_job_state(await queue.delay({"task_id": "t"})) == "waiting"
    assert await queue.get_job_state(await queue.delay({"task_id": "t"}, later)) == "delayed"
    assert await queue.get_job_state(await queue.enqueue_delayed({"task_id": "t"}, later.timestamp())) == "delayed"


async def test_a_bulk_answers_ids_in_order_and_takes_jobId_for_job_id(app: Callboard) -> None:
    queue = app.queue("emails")
    ids = await queue.add_bulk(
        [
            {"task_id": "t", "args": [0]},
            {"task_id": "t", "args": [1], "jobId": "first"},
            {"task_id": "t", "kwargs": {"x": 2}, "job_id": "second"},
            {"task_id": "t", "args": [3], "delay": 60},
        ]
    )
    assert ids[1:3] == ["first", "second"]
    jobs = [await queue.get_job(job_id) for job_id in ids]
    assert [(job.args, job.kwargs, job.state) for job in jobs if job] == [
        ([0], {}, "waiting"),
        ([1], {}, "waiting"),
        ([], {"x": 2}, "waiting"),
        ([3], {}, "delayed"),
    ]


async def test_a_bulk_of_more_than_one_batch_keeps_its_order_and_runs_whole(app: Callboard) -> None:
    seen: list[int] = []

    @app.task(queue="bulk", name="note")
    async def note(i: int) -> None:
        seen.append(i)

    async with running(app):
        ids = await app.queue("bulk").add_bulk([{"task_id": "note", "args": [i]} for i in range(1000)])
        await settled(app, "bulk", timeout=60)
    jobs = {job.id: job.args[0] for job in await app.queue("bulk").get_completed()}
    assert [jobs[job_id] for job_id in ids] == list(range(1000))
    assert sorted(seen) == list(range(1000))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"args": [1]}, r"jobs\[2\]: task_id is missing"),
        ({"task_id": "t", "priority": 0}, r"jobs\[2\]: priority must be .* not 0"),
        ({"task_id": "t", "jobId": "7"}, r"jobs\[2\]: job_id must not be all digits: '7'"),
        ({"task_id": "t", "jobId": ""}, r"jobs\[2\]: job_id must not be empty"),
        ({"task_id": "t", "retrys": 3}, r"jobs\[2\]: unknown member 'retrys'"),
        ({"task_id": "t", "args": [float("nan")]}, r"jobs\[2\]: args\[0\]: nan has no JSON form"),
        ({"task_id": "typed", "args": ["x"]}, r"jobs\[2\]: args\[0\]: .*valid integer.*'x'"),
        ({"task_id": "t", "args": "abc"}, r"jobs\[2\]: args must be a list"),
        ({"task_id": "t", "jobId": "a", "job_id": "b"}, r"jobs\[2\]: .*'b', 'a'"),
    ],
)
async def test_one_bad_item_in_a_bulk_is_named_by_its_position_and_nothing_is_added(
    app: Callboard, bad: dict[str, Any], complaint: str
) -> None:
    @app.task(name="typed")
    async def typed(x: int) -> None: ...

    good = {"task_id": "t"}
    with pytest.raises(InvalidJob, match=complaint):
        await app.queue("emails").add_bulk([good, good, bad, good])
    assert await app.queue("emails").count() == 0


async def test_an_item_that_is_no_mapping_is_a_type_error_with_its_position(app: Callboard) -> None:
    with pytest.raises(TypeError, match=r"jobs\[1\]: must be a mapping"):
        await app.queue("emails").add_bulk([{"task_id": "t"}, "t"])  # type: ignore[list-item]
    assert await app.queue("emails").count() == 0


async def test_an_empty_bulk_adds_nothing(app: Callboard) -> None:
    assert await app.queue("emails").add_bulk([]) == []


async def test_arguments_of_the_wrong_type_fail_where_the_job_is_made(app: Callboard) -> None:
    @app.task(name="typed")
    async def typed(x: int, *, name: str = "") -> None: ...

    with pytest.raises(ArgumentsInvalid, match=r"args\[0\].*'1'") as refused:
        await typed.enqueue("1")  # type: ignore[arg-type]
    assert (refused.value.path, refused.value.value) == ("args[0]", "'1'")
    with pytest.raises(ArgumentsInvalid, match=r"kwargs\.name"):
        await app.queue("default").add("typed", [1], {"name": 5})
    with pytest.raises(ArgumentsInvalid, match=r"kwargs\.x: the argument 'x' is missing"):
        await typed.enqueue()  # type: ignore[call-arg]
    assert await app.queue("default").count() == 0


@pytest.mark.parametrize("args", ["abc", b"abc", {"a": 1}, 5])
async def test_arguments_that_are_no_list_are_refused_not_taken_apart(app: Callboard, args: Any) -> None:
    with pytest.raises(InvalidJob, match="args must be a list"):
        await app.queue("default").add("t", args)


async def test_a_payload_beyond_the_limit_is_refused_before_anything_is_written(place: Place) -> None:
    async with place.open(payload_limit=1000) as app:
        await app.queue("emails").add("t", ["x" * 500])
        with pytest.raises(PayloadTooLarge, match="the limit is 1000") as refused:
            await app.queue("emails").add("t", ["x" * 1000])
        assert refused.value.limit == 1000 < refused.value.size
        with pytest.raises(PayloadTooLarge, match=r"jobs\[1\]"):
            await app.queue("emails").add_bulk([{"task_id": "t"}, {"task_id": "t", "args": ["x" * 1000]}])
        assert await app.queue("emails").count() == 1


async def test_depends_on_is_refused_with_what_to_do_instead(app: Callboard) -> None:
    @app.task(name="child")
    async def child() -> None: ...

    with pytest.raises(InvalidJob, match=r"depends_on is not supported yet .*'abc'.*enqueue the dependent job from"):
        child.options(depends_on=["abc"])
    with pytest.raises(InvalidJob, match="depends_on is not supported yet"):
        await app.queue("default").add("child", depends_on="abc")
    with pytest.raises(InvalidJob, match=r"jobs\[0\]: depends_on is not supported yet"):
        await app.queue("default").add_bulk([{"task_id": "child", "depends_on": ["abc"]}])


async def test_confirm_waits_for_the_broker_too(app: Callboard) -> None:
    await app.queue("emails").add("t", confirm=True)
    depth = await app.connections.broker.depth(app.connections.names.job_queue("emails"))
    assert depth is not None
    assert depth.ready == 1


async def test_two_tasks_cannot_have_one_name(app: Callboard) -> None:
    from callboard import ConfigurationError

    @app.task(name="same")
    async def one() -> None: ...

    with pytest.raises(ConfigurationError, match="two tasks are named 'same'"):
        app.task(name="same")(one.function)
