"""The rules of every operation: repeats are harmless, batches are singles, bytes come back, names are only data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from msgspec import structs

from ...metadata.contract import Ending, Finish, Jobs, Outcome, Removal, Sent, Ticket, Verdict
from ...metadata.job import Deduplication, Job, Keep, State
from .store_scene import BOOT, GRACE, LAG, OTHER, QUEUE, Scene, StoreSuite

PAYLOADS = {
    "every byte": bytes(range(256)),
    "nothing": b"",
    "a megabyte": bytes(range(256)) * 4096,
    "zeros": b"\x00" * 300,
    "what looks like a script": b"'; return redis.call('flushall') -- {$ne: 1}",
}
HOSTILE = [
    "{braces}",
    "}{",
    "quote'\"`",
    "line\nbreak\r\n",
    "tab\tnull\x00end",
    "$set",
    "a.b",
    "*",
    "[a-z]?",
    "%s%d{0}",
    " ",
    "key:job:1",
    "ünïcödé 💥 漢字",
    "x" * 256,
    "é" * 128,
    "\\",
    "-1",
    "0",
    "1e5",
    "nil",
    "[]",
    "cjson.null",
    "\u2028\ufeff",
]


class RepeatConformance(StoreSuite):
    @pytest.mark.parametrize("name", PAYLOADS)
    async def test_bytes_come_back_as_they_were_sent(self, scene: Scene, name: str) -> None:
        data = PAYLOADS[name]
        await scene.start("job", payload=data)
        await scene.jobs.progress(QUEUE, "job", dispatch=1, owner=BOOT, value=data)
        await scene.beat(info=data)
        (row,) = await scene.workers.workers([QUEUE])
        await scene.finish("job", result=data, error=data, history=data)
        job = await scene.job()
        assert row.info == data
        assert await scene.inspection.progress(QUEUE, "job") == data
        assert (job.payload, job.result, job.error, job.history) == (data, data, data, (data,))

    @pytest.mark.parametrize("name", PAYLOADS)
    async def test_a_relayed_payload_is_as_it_was_sent(self, scene: Scene, name: str) -> None:
        await scene.add("job", payload=PAYLOADS[name])
        scene.step(GRACE)
        (row,) = await scene.jobs.take_unpublished([QUEUE], now=scene.now, grace=GRACE, limit=1)
        assert row.payload == PAYLOADS[name]

    async def test_an_empty_result_is_not_the_same_as_none(self, scene: Scene) -> None:
        await scene.start("empty")
        await scene.finish("empty", result=b"", error=b"", history=b"")
        await scene.start("none")
        await scene.finish("none")
        empty, none = await scene.job("empty"), await scene.job("none")
        assert (empty.result, empty.error, empty.history) == (b"", b"", (b"",))
        assert (none.result, none.error, none.history) == (None, None, ())

    @pytest.mark.parametrize("id", HOSTILE)
    async def test_any_text_is_a_job_id(self, scene: Scene, id: str) -> None:
        await scene.beat()
        await scene.add(id, run_at=scene.now + 1)
        scene.step(1)
        assert await scene.due() == [(id, 1)]
        scene.step(GRACE)
        assert await scene.unpublished() == [(id, 1)]
        await scene.confirm(id)
        assert (await scene.claim(id)).verdict is Verdict.CLAIMED
        await scene.jobs.cancel(QUEUE, [id], now=scene.now, keep=Keep())
        assert list((await scene.beat()).cancels) == [(QUEUE, id)]
        assert (await scene.finish(id)).finish is Finish.DONE
        assert (await scene.job(id)).id == id
        assert list(await scene.jobs.remove(QUEUE, [id], now=scene.now)) == [Removal.REMOVED]
        assert (await scene.claim(id)).verdict is Verdict.GONE

    async def test_hostile_ids_are_kept_apart(self, scene: Scene) -> None:
        await scene.enqueue(*(scene.new(id) for id in HOSTILE))
        jobs = await scene.inspection.get(QUEUE, HOSTILE)
        assert [job and (job.id, job.payload) for job in jobs] == [(id, b"payload of " + id.encode()) for id in HOSTILE]

    @pytest.mark.parametrize("key", HOSTILE)
    async def test_any_text_is_a_deduplication_id(self, scene: Scene, key: str) -> None:
        await scene.add_unique("holder", key=key)
        assert await scene.deduplicating.holder(QUEUE, key, now=scene.now) == "holder"
        assert (await scene.add_unique("newcomer", key=key)).id == "holder"
        assert await scene.deduplicating.release(QUEUE, key)

    async def test_any_text_is_a_group_of_retention(self, scene: Scene) -> None:
        for group in HOSTILE:
            for n in range(2):
                await scene.run(f"{n} of {group}", keep=Keep(count=1, group=group))
                scene.step(1)
        await scene.prune()
        assert [await scene.find(f"0 of {group}") for group in HOSTILE] == [None] * len(HOSTILE)
        assert all([await scene.find(f"1 of {group}") is not None for group in HOSTILE])

    async def test_large_numbers_come_back_exactly(self, scene: Scene) -> None:
        far = 2**53 - 1
        await scene.add("job", run_at=far, expires_at=far - 1)
        job = await scene.job()
        assert (job.run_at, job.expires_at) == (far, far - 1)
        assert (await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=1)).next_due == far

    async def test_numbers_come_back_as_plain_integers(self, scene: Scene) -> None:
        claimed = await scene.start("job", run_at=scene.now - 1, expires_at=2**53 - 1)
        job, (row,) = await scene.job(), await scene.workers.workers([QUEUE])
        await scene.finish("job")
        due = await scene.delays.take_due([QUEUE], now=scene.now, grace=GRACE, limit=1)
        for value in (claimed, job, row, due, await scene.job()):
            numbers = [one for one in structs.astuple(value) if isinstance(one, int) and not isinstance(one, bool)]
            assert {type(one) for one in numbers} <= {int}, value

    async def test_empty_batches_are_answered_with_nothing(self, scene: Scene) -> None:
        now = scene.now
        assert list(await scene.jobs.enqueue([], now=now, grace=GRACE)) == []
        await scene.jobs.published([], now=now)
        assert list(await scene.claims()) == []
        assert list(await scene.jobs.finish(QUEUE, [], now=now, grace=GRACE)) == []
        assert list(await scene.jobs.cancel(QUEUE, [], now=now, keep=Keep())) == []
        assert list(await scene.jobs.retry(QUEUE, [], now=now, grace=GRACE)) == []
        assert list(await scene.jobs.remove(QUEUE, [], now=now)) == []
        assert list(await scene.jobs.take_unpublished([], now=now, grace=GRACE, limit=1)) == []
        assert list(await scene.workers.workers([])) == []
        assert list(await scene.inspection.get(QUEUE, [])) == []
        assert list(await scene.reschedule()) == []
        assert list(await scene.delays.remove(QUEUE, [], now=now)) == []
        assert (await scene.delays.take_due([], now=now, grace=GRACE, limit=1)).next_due is None
        assert (await scene.workers.heartbeat(BOOT, [], info=b"", now=now)).alive

    async def test_a_full_batch_of_each_operation_is_answered_in_order(self, scene: Scene) -> None:
        ids = [f"{n:03}" for n in range(128)]
        await scene.beat()
        assert [answer.id for answer in await scene.enqueue(*(scene.new(id) for id in ids))] == ids
        await scene.jobs.published([Sent(QUEUE, id, 1) for id in ids], now=scene.now)
        assert [answer.id for answer in await scene.claims(*(Ticket(id, 1) for id in ids))] == ids
        outcomes = [Outcome(id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED) for id in ids]
        finished = await scene.jobs.finish(QUEUE, outcomes, now=scene.now, grace=GRACE)
        assert [(answer.id, answer.finish) for answer in finished] == [(id, Finish.DONE) for id in ids]
        assert [job and job.id for job in await scene.inspection.get(QUEUE, ids)] == ids

    async def test_confirmations_of_several_queues_travel_together(self, scene: Scene) -> None:
        await scene.enqueue(scene.new("a"), scene.new("b", queue="reports"))
        await scene.jobs.published([Sent("reports", "b", 1), Sent(QUEUE, "a", 1)], now=scene.now)
        assert (await scene.job("a")).sent_at == (await scene.job("b", "reports")).sent_at == scene.now

    # -- repeats ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("operation", ["enqueue", "delayed", "unique", "existing"])
    async def test_a_repeated_enqueue_gives_the_same_state_and_answer(self, scene: Scene, operation: str) -> None:
        await scene.add("taken", payload=b"other")
        job = {
            "enqueue": scene.new("job"),
            "delayed": scene.new("job", run_at=scene.now + 5_000),
            "unique": scene.new("job", deduplication=Deduplication(id="key", ttl=1_000, extend=True, replace=True)),
            "existing": scene.new("taken"),
        }[operation]
        await self._repeats(scene, lambda: scene.enqueue(job))

    async def test_a_repeated_replacement_replaces_nothing_more(self, scene: Scene) -> None:
        mode = Deduplication(id="key", ttl=9_000, extend=True, replace=True)
        await scene.enqueue(scene.new("holder", run_at=scene.now + 5_000, deduplication=mode))
        job = scene.new("job", run_at=scene.now + 5_000, deduplication=mode)
        (first,) = await scene.enqueue(job)
        before = await _all(scene)
        (again,) = await scene.enqueue(job)
        assert (again.id, again.state, again.dispatch) == (first.id, first.state, first.dispatch)
        assert again.admission in ("created", "replaced")
        assert await _all(scene) == before

    @pytest.mark.parametrize("operation", ["confirm", "cancel", "cancel running", "remove", "progress", "pause"])
    async def test_a_repeated_operation_gives_the_same_state_and_answer(self, scene: Scene, operation: str) -> None:
        await scene.add("waiting")
        await scene.start("running")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "confirm": lambda: scene.confirm("waiting"),
            "cancel": lambda: scene.jobs.cancel(QUEUE, ["waiting"], now=scene.now, keep=Keep()),
            "cancel running": lambda: scene.jobs.cancel(QUEUE, ["running"], now=scene.now, keep=Keep()),
            "remove": lambda: scene.jobs.remove(QUEUE, ["waiting"], now=scene.now),
            "progress": lambda: scene.jobs.progress(QUEUE, "running", dispatch=1, owner=BOOT, value=b"half"),
            "pause": lambda: scene.control.pause(QUEUE),
        }
        await self._repeats(scene, calls[operation])

    async def test_a_repeated_retry_tells_that_the_job_waits(self, scene: Scene) -> None:
        await scene.run("job")
        await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)
        before = await scene.job()
        assert list(await scene.jobs.retry(QUEUE, ["job"], now=scene.now, grace=GRACE)) == [State.WAITING]
        assert await scene.job() == before

    async def test_repeated_takes_take_nothing_more(self, scene: Scene) -> None:
        await scene.start("stalled")
        await scene.enqueue(scene.new("due", run_at=scene.now + 1), scene.new("outbox"), scene.new("lost"))
        await scene.confirm("lost")
        await scene.lose()
        scene.step(GRACE)

        async def overtaken() -> list[tuple[str, int]]:
            return await scene.overtaken(sent_before=scene.now)

        for take in (scene.unpublished, scene.due, overtaken):
            assert len(await take()) == 1
            before = await _all(scene)
            assert await take() == []
            assert await _all(scene) == before
        assert len((await scene.stalled()).ready) == 1
        before = await _all(scene)
        assert len((await scene.stalled()).ready) == 0
        assert await _all(scene) == before

    async def _repeats(self, scene: Scene, call: Callable[[], Awaitable[object]]) -> None:
        first = await call()
        before = await _all(scene)
        assert await call() == first
        assert await _all(scene) == before

    # -- batches --------------------------------------------------------------------------------------------------

    async def test_a_batch_leaves_the_state_that_its_entries_leave_one_by_one(self, scene: Scene) -> None:
        await scene.beat()
        await scene.beat(OTHER)
        news = [("a", 1), ("b", 2), ("a", 3), ("c", 4)]
        together = [scene.new(id, priority=priority) for id, priority in news]
        apart = [scene.new(id, priority=priority, queue="apart") for id, priority in news]
        await scene.beat(queue="apart")
        first = await scene.enqueue(*together)
        second = [(await scene.enqueue(job))[0] for job in apart]
        assert list(first) == second
        tickets = [Ticket("a", 1), Ticket("b", 2), Ticket("nobody", 1), Ticket("a", 1), Ticket("c", 0)]
        claimed = await scene.claims(*tickets)
        singly = [(await scene.claims(ticket, queue="apart"))[0] for ticket in tickets]
        assert [(answer.id, answer.verdict) for answer in claimed] == [(answer.id, answer.verdict) for answer in singly]
        for id in ("a", "b", "c"):
            one, two = await scene.job(id), await scene.job(id, "apart")
            assert (one.state, one.dispatch, one.priority, one.attempts) == (
                two.state,
                two.dispatch,
                two.priority,
                two.attempts,
            )

    async def test_every_capability_speaks_of_the_same_jobs(self, scene: Scene) -> None:
        await scene.start("job")
        jobs = scene.store.get(Jobs)
        outcome = Outcome(id="job", dispatch=1, owner=BOOT, ending=Ending.COMPLETED)
        await jobs.finish(QUEUE, [outcome], now=scene.now, grace=LAG)
        assert (await scene.inspection.counts([QUEUE]))[QUEUE].completed == 1


async def _all(scene: Scene) -> list[Job]:
    """Every record of the queue."""
    return [
        job
        for state in State
        for job in await scene.inspection.page(QUEUE, state, offset=0, limit=1_000, newest_first=False)
    ]
