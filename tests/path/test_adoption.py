"""A ticket whose record is not there: it may still be on its way, and the job must run once whichever comes first."""

from __future__ import annotations

import asyncio

from callboard import Callboard
from callboard.metadata.contract import Admission, Ready
from callboard.metadata.job import NewJob, State
from callboard.runtime.options import CallOptions
from callboard.runtime.testing import running
from path.place import Place


def ticket_of(job: NewJob) -> Ready:
    return Ready(job.queue, job.id, 1, job.priority, job.payload)


def counted(app: Callboard) -> list[int]:
    runs: list[int] = []

    @app.task(name="count", queue="emails")
    async def count(number: int) -> None:
        runs.append(number)

    return runs


async def test_a_ticket_that_overtakes_its_record_runs_when_the_record_is_there(app: Callboard) -> None:
    runs = counted(app)
    async with running(app):
        job = app.new_job("count", [1], {}, CallOptions())
        await app.connections.dispatcher.send([ticket_of(job)])
        (answer,) = await app.connections.producer.enqueue([job])
        assert answer.admission is Admission.CREATED
        await app.queue("emails").handle(job.id).result(timeout=60)
    assert runs == [1]


async def test_a_record_that_comes_after_its_job_was_adopted_and_ended_makes_no_second_job(place: Place) -> None:
    async with place.open(keep_completed_count=0) as app:
        runs = counted(app)
        async with running(app):
            job = app.new_job("count", [1], {}, CallOptions())
            await app.connections.dispatcher.send([ticket_of(job)])
            async with asyncio.timeout(60):
                while (found := await app.queue("emails").get_job(job.id)) is None or not found.state.final:
                    await asyncio.sleep(0.05)  # a second or so: nobody writes the record
            assert found.state is State.COMPLETED
            (answer,) = await app.connections.producer.enqueue([job], fresh=True)
            assert (answer.admission, answer.state) == (Admission.CREATED, State.COMPLETED)
            await app.connections.dispatcher.flush()
            await app.queue("emails").add("count", [2])
            async with asyncio.timeout(60):
                while runs != [1, 2]:
                    await asyncio.sleep(0.01)
