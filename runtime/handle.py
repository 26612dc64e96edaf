"""A job that was enqueued here, or is known by its id: its state, its end, its result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..brokers.errors import BrokerUnavailable
from ..metadata.contract import Admission, Cancel
from ..metadata.errors import StoreUnavailable
from ..metadata.job import Job, State
from .errors import JobCancelled, JobExpired, JobFailed, JobUnknown, ResultTimeout
from .futures import looked_at
from .results import decode_error, decode_result

if TYPE_CHECKING:
    from .app import Callboard

HEAR_SECONDS = 0.01
LOOK_SOON_SECONDS = 0.5  # after the store did not answer
LOOK_AGAIN_SECONDS = 5.0  # a lost event is made up for by a look into the store


class JobHandle:
    """`admission` says what `enqueue` did: created, existing, deduplicated or replaced; None where it was only looked
    up. `id` is that of the job that stands for the call, which for a duplicate is the older one."""

    __slots__ = ("_app", "_fresh", "admission", "id", "queue")

    def __init__(
        self, app: Callboard, *, queue: str, id: str, admission: Admission | None = None, fresh: bool = False
    ) -> None:
        """`fresh`: the id was made for the call, so that no other job ever had it."""
        self._app = app
        self.queue = queue
        self.id = id
        self.admission = admission
        self._fresh = fresh and admission is Admission.CREATED

    async def state(self) -> State:
        """Raises JobUnknown where there is no record."""
        return (await self._record()).state

    async def cancel(self) -> Cancel:
        """Cancel it: at once if it has not started, else by interrupting its run. Says which."""
        return await self._app.queue(self.queue).cancel_job(self.id)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return what the task returned, as JSON values.

        Raises JobFailed, JobCancelled, JobExpired or JobUnknown as it ended, ResultTimeout after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                ended = await self._end()
        except TimeoutError:
            state = await self.state()
            raise ResultTimeout(self.id, seconds=timeout or 0.0, state=state) from None
        return result_of(ended) if isinstance(ended, Job) else decode_result(ended)

    async def _end(self) -> Job | bytes:
        """The record, or the result alone where the event of the end brought it."""
        listener = self._app.connections.listener
        # Of a job that was made while ends were told here, this end will be, or has been: no need to look at once.
        heard = self._fresh and listener.hears(self.queue)
        while True:
            try:
                ended = await listener.watch(self.queue, self.id, fresh=self._fresh)
            except BrokerUnavailable:
                ended = asyncio.get_running_loop().create_future()
            try:
                found = await self._look_or_hear(ended, HEAR_SECONDS if heard else 0.0)
            finally:
                listener.unwatch(self.queue, self.id, ended)
            if found is not None:
                return found
            heard = False
            listener.doubt()

    async def _look_or_hear(self, ended: asyncio.Future[bytes | None], pause: float) -> Job | bytes | None:
        """After a pause look into the store, and listen meanwhile and for a while after. None: look again."""
        if pause > 0 and not ended.done():
            await asyncio.wait((ended,), timeout=pause)
        if ended.done():
            return ended.result()
        looking = asyncio.ensure_future(self._record())
        try:
            await asyncio.wait((looking, ended), return_when=asyncio.FIRST_COMPLETED)
            pause = LOOK_AGAIN_SECONDS
            if not ended.done():
                try:
                    if (job := looking.result()).state.final:
                        return job
                except StoreUnavailable:  # it comes back, or the caller's timeout ends this
                    pause = LOOK_SOON_SECONDS
                await asyncio.wait((ended,), timeout=pause)
            return ended.result() if ended.done() else None
        finally:
            looking.cancel()
            looking.add_done_callback(looked_at)
            ended.cancel()

    async def _record(self) -> Job:
        job = await self._app.queue(self.queue).record(self.id)
        if job is None:
            raise JobUnknown(self.id)
        return job

    def __repr__(self) -> str:
        return f"<Job {self.id} on {self.queue}>"


def result_of(job: Job) -> Any:
    """What a final job returned; raises as `JobHandle.result` does."""
    match job.state:
        case State.COMPLETED:
            return None if job.result is None else decode_result(job.result)
        case State.CANCELLED:
            raise JobCancelled(job.id)
        case State.EXPIRED:
            raise JobExpired(job.id)
        case _:
            error = decode_error(job.error) if job.error else None
            if error is None:
                raise JobFailed(job.id, error_type="unknown", message="no error was recorded")
            raise JobFailed(job.id, error_type=error.type, message=error.message, traceback=error.traceback)
