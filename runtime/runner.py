"""Runs one claimed job: finds its task, calls it in the right executor, and says how it ended.

Whatever a task does ends in an Outcome; nothing a task raises or returns can stop the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ..metadata.contract import Ending, Jobs, Outcome
from ..metadata.errors import MetadataError
from ..metadata.job import Keep
from .actor import Stage
from .arguments import ArgumentsInvalid
from .context import RUNNING, Context
from .executors.contract import Call, Executor, TaskExited
from .executors.loop import LoopExecutor
from .executors.process import ProcessExecutor
from .executors.thread import ThreadExecutor
from .job_view import Attempt
from .json_value import encode_json
from .results import ErrorInfo, ResultInvalid, ResultTooLarge, describe_error, encode_error
from .retry import Backoff, RetryPolicy
from .run import Interruption, Run
from .task import Task
from .wire import VERSION, Ticket

PARK_SECONDS = 10.0  # until a job that nobody here can run is tried again: a deploy may be under way

# The task ran and its side effects are done; running it again would not make its result any better.
_HOPELESS = (ArgumentsInvalid, ResultInvalid, ResultTooLarge)


class Runner:
    """`released` is called with the run when its slot is free again, which may be after `run` returned: a thread that
    has timed out goes on."""

    def __init__(self, stage: Stage, *, lease_is_certain: Callable[[], bool], released: Callable[[], None]) -> None:
        self._stage = stage
        self._app = stage.app
        self._jobs = stage.capability(Jobs)
        self._lease_is_certain = lease_is_certain
        self._released = released
        self._loop = asyncio.get_running_loop()
        self._inline = LoopExecutor()
        self._threads = ThreadExecutor(stage.options.concurrency)
        self._processes: ProcessExecutor | None = None
        self._keeps: dict[str, tuple[Keep, Keep]] = {}
        self._progress: dict[tuple[str, str], tuple[Run, bytes]] = {}
        self._reporting: asyncio.Task[None] | None = None

    async def run(self, run: Run, current: asyncio.Task[None]) -> Outcome:
        """`current`: the task that this is called in, and which runs nothing else."""
        task = self._app.tasks.get(run.ticket.task)
        if task is None or run.ticket.later:
            self._released()
            return self._incompatible(run)
        try:
            run.context = self._context(run)
            policy = _policy(task.declared.retry, run.ticket)
        except (ValueError, msgspec.MsgspecError) as error:  # members of the ticket that no producer of ours writes
            self._released()
            return self._outcome(run, Ending.FAILED, describe_error(error), keep=self._keep_failed(run, task))
        executor = self._executor(task)
        in_thread = executor is self._threads
        run.abandonable = executor is self._inline
        # A thread can only be asked; it is left alone while there is hope that it ends.
        run.interrupt = lambda: current.cancel() if not in_thread or run.interruption is Interruption.STOPPING else None
        RUNNING.set(run.context)
        try:
            call = self._call(run, task, run.context)
            if self._app.tracing is None:
                result = await executor.run(call)
            else:
                result = await self._app.tracing.run(
                    run.ticket, run.queue, run.claimed.attempt, run.boot, lambda: executor.run(call)
                )
        except asyncio.CancelledError as error:
            current.uncancel()
            if run.interruption is None:  # the handler's own doing
                return self._failed(run, task, policy, TaskExited(error))
            return self.interrupted(run, run.interruption)
        except Exception as error:  # a task may raise anything
            if run.interruption is Interruption.CANCELLED:
                return self.interrupted(run, run.interruption)
            return self._failed(run, task, policy, error)
        finally:
            run.interrupt = None
            RUNNING.set(None)  # what is told from here on is about others too
        keep = task.declared.keep_completed
        return Outcome(
            id=run.ticket.id,
            dispatch=run.ticket.dispatch,
            owner=run.boot,
            ending=Ending.COMPLETED,
            result=result,
            history=self._history(run, "completed"),
            keep=self._kept(run, keep.keep(group=task.name) if keep else self._keep(run.queue)[0]),
        )

    async def close(self, grace_seconds: float = 0.0) -> None:
        for executor in (self._inline, self._threads, self._processes):
            if executor is not None:
                await executor.close(grace_seconds)
        if self._reporting is not None:
            self._reporting.cancel()

    # --- the call ---

    def _executor(self, task: Task[..., Any]) -> Executor:
        if task.declared.executor == "process":
            if self._processes is None:
                level = logging.getLogger().level if self._stage.settings.log_format == "json" else None
                self._processes = ProcessExecutor(self._stage.options.executor_processes, log_level=level)
            return self._processes
        return self._inline if task.is_async else self._threads

    def _call(self, run: Run, task: Task[..., Any], context: Context) -> Call:
        ticket = run.ticket
        return Call(
            function=task.function,
            signature=task.signature,
            context=context,
            args=bytes(ticket.args),
            kwargs=bytes(ticket.kwargs),
            timeout_ms=ticket.timeout or task.declared.timeout_ms,
            result_limit=task.declared.result_limit or self._stage.settings.result_limit,
            released=self._released,
        )

    def _context(self, run: Run) -> Context:
        ticket = run.ticket
        return Context(
            job_id=ticket.id,
            queue=run.queue,
            task=ticket.task,
            attempt=run.claimed.attempt,
            dispatch=ticket.dispatch,
            fence=run.claimed.fence,
            worker=run.boot,
            meta=msgspec.json.decode(ticket.meta, type=dict[str, Any]) if ticket.meta else {},
            report=lambda value: self._report(run, value),
            lease_is_certain=self._lease_is_certain,
            app=self._app,
            traceparent=ticket.traceparent,
        )

    # --- how it ended ---

    def _failed(self, run: Run, task: Task[..., Any], policy: RetryPolicy, error: Exception) -> Outcome:
        described = describe_error(error)
        ticket = run.ticket
        self._stage.log.warning(
            "task %s failed: job %s, attempt %d: %s: %.300r",
            *(ticket.task, ticket.id, run.claimed.attempt, described.type, described.message),
        )
        wait = None
        if not isinstance(error, _HOPELESS):
            wait = policy.decide(error, run.claimed.failures + 1, self._stage.random)
        if wait is None:
            return self._outcome(run, Ending.FAILED, described, keep=self._keep_failed(run, task))
        return self._outcome(run, Ending.RETRY, described, run_at=self._stage.clock.now() + wait)

    def interrupted(self, run: Run, reason: Interruption) -> Outcome:
        if reason is Interruption.CANCELLED:
            return self._outcome(run, Ending.CANCELLED, None, keep=self._keep_failed(run, None))
        # Also where the lease was lost: the store refuses it then, which is how the loss is told and counted.
        return self._outcome(run, Ending.RELEASE, None, reason=f"interrupted: {reason}")

    def _incompatible(self, run: Run) -> Outcome:
        """Parked for `unknown_task_grace`, in case a deploy is under way; then it fails."""
        ticket, now = run.ticket, self._stage.clock.now()
        grace = round(self._stage.settings.unknown_task_grace * 1000)
        since = run.claimed.parked_at or now
        if ticket.later:
            kind, hint = "callboard.LaterVersion", "was the upgrade of the workers left unfinished?"
            what = f"no worker of queue {run.queue!r} reads its wire version {ticket.v}, this one only {VERSION}"
        else:
            kind, hint = "callboard.UnknownTask", "is its module imported?"
            what = f"no worker of queue {run.queue!r} knows the task {ticket.task!r}"
        if now - since >= grace:
            error = ErrorInfo(type=kind, message=f"{what}, for {grace / 1000:g} s; {hint}")
            return self._outcome(run, Ending.FAILED, error, keep=self._keep_failed(run, None))
        self._stage.log.warning("%s; job %s is tried again in %g s", what, ticket.id, PARK_SECONDS)
        pause = min(round(PARK_SECONDS * 1000), max(grace, 100))
        return self._outcome(run, Ending.PARK, None, run_at=now + pause, reason=what)

    def _outcome(
        self,
        run: Run,
        ending: Ending,
        error: ErrorInfo | None,
        *,
        run_at: int | None = None,
        reason: str | None = None,
        keep: Keep | None = None,
    ) -> Outcome:
        names = {Ending.RETRY: "retried", Ending.RELEASE: "released", Ending.PARK: "parked"}
        return Outcome(
            id=run.ticket.id,
            dispatch=run.ticket.dispatch,
            owner=run.boot,
            ending=ending,
            error=None if error is None else encode_error(error),
            history=self._history(run, names.get(ending, ending.value), error=error, reason=reason),
            run_at=run_at,
            keep=self._kept(run, keep or self._keep(run.queue)[1]),
        )

    def _history(self, run: Run, outcome: str, *, error: ErrorInfo | None = None, reason: str | None = None) -> bytes:
        short = None if error is None else msgspec.structs.replace(error, traceback="")
        return msgspec.json.encode(
            Attempt(
                attempt=run.claimed.attempt,
                dispatch=run.ticket.dispatch,
                worker=run.boot,
                outcome=outcome,
                started_at=run.started_at,
                ended_at=self._stage.clock.now(),
                error=short,
                reason=reason,
            )
        )

    def _keep(self, queue: str) -> tuple[Keep, Keep]:
        """Of completed and of failed jobs whose task says nothing; made once for each queue."""
        keeps = self._keeps.get(queue)
        if keeps is None:
            completed, failed = self._app.retention(queue)
            keeps = self._keeps[queue] = (completed.keep(), failed.keep())
        return keeps

    def _kept(self, run: Run, keep: Keep) -> Keep:
        """The producer's own write may come after its ticket, and must find the record then: it would make a second job
        of a forgotten one."""
        if not run.adopted:
            return keep
        age = None if keep.age is None else max(keep.age, round(self._stage.settings.adoption_window_seconds * 1000))
        return Keep(age=age, group=keep.group)

    def _keep_failed(self, run: Run, task: Task[..., Any] | None) -> Keep:
        if task is not None and task.declared.keep_failed is not None:
            return task.declared.keep_failed.keep(group=task.name)
        return self._keep(run.queue)[1]

    # --- progress ---

    def _report(self, run: Run, value: Any) -> None:
        """From any thread. Raises NotJson for a value that has no JSON form."""
        self._loop.call_soon_threadsafe(self._note_progress, run, encode_json(value, "progress"))

    def _note_progress(self, run: Run, encoded: bytes) -> None:
        self._progress[run.key] = (run, encoded)
        if self._reporting is None or self._reporting.done():
            self._reporting = self._loop.create_task(self._send_progress())

    async def _send_progress(self) -> None:
        """What is reported while a call is under way replaces what was reported before."""
        while self._progress:
            key = next(iter(self._progress))
            run, value = self._progress.pop(key)
            ticket = run.ticket
            try:
                await self._jobs.progress(run.queue, ticket.id, dispatch=ticket.dispatch, owner=run.boot, value=value)
            except MetadataError as error:
                self._stage.log.warning("the progress of job %s is not noted: %s", ticket.id, error)


def _policy(declared: RetryPolicy, ticket: Ticket) -> RetryPolicy:
    """The job's own retries and backoff before the task's."""
    if ticket.retries is None and not ticket.backoff:
        return declared
    backoff = declared.backoff
    if ticket.backoff:
        backoff = Backoff.parse(msgspec.json.decode(ticket.backoff))
    retries = declared.retries if ticket.retries is None else ticket.retries
    return msgspec.structs.replace(declared, retries=retries, backoff=backoff)
