"""Looks at all that a simulated store answers and at every run of a handler, and notes what must never be.

two claims of one job at one dispatch; a claim whose fence does not grow       one run at a time has the job
a finish accepted twice, or of a boot that was declared dead                   one end for each run
a job that ended twice                                                         one final state, for ever
a boot declared dead within a lease of its last heartbeat                      who lives keeps its jobs
two starts of one dispatch; a start before its time
an occurrence with two jobs or none; a schedule that goes back
an actor that failed, an error that nobody handled
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ....metadata.contract import (
    Admission,
    Claimed,
    Delay,
    Enqueued,
    Finish,
    Finished,
    Outcome,
    Ready,
    Stalled,
    Ticket,
    Verdict,
)
from ....metadata.job import NewJob
from ....metadata.schedule import Firing
from ....metadata.schedules import Fire, Fired
from ....metadata.standing import Handed
from ...context import Context
from ...wire import decode_body

MOST_WRONGS = 20

_MADE = (Admission.CREATED, Admission.REPLACED)


class Run(Struct, kw_only=True):
    """One run of a handler. Seconds since the simulation began; `ended` None: it was interrupted for good. `failed`:
    the name of what it raised."""

    task: str
    job: str
    queue: str
    dispatch: int
    attempt: int
    process: str
    began: float
    ended: float | None = None
    failed: str | None = None


class Watch:
    def __init__(self, *, elapsed: Callable[[], float], now: Callable[[], int], lease: float) -> None:
        self.wrongs: list[str] = []
        self.runs: list[Run] = []
        self._open: list[Run] = []
        self.final: dict[tuple[str, str], str] = {}  # how each job ended, by queue and id
        self._elapsed = elapsed
        self._now = now
        self._lease = lease
        self._started: set[tuple[str, str, int]] = set()
        self._claimed: dict[tuple[str, str, int], str] = {}
        self._finished: set[tuple[str, str, int]] = set()
        self._fences: dict[tuple[str, str], int] = {}
        self._due: dict[tuple[str, str], tuple[int, int]] = {}  # when, and of which dispatches: those above this one
        self._beats: dict[tuple[str, str], float] = {}
        self._left: set[tuple[str, str]] = set()
        self._dead: dict[tuple[str, str], float] = {}
        self._fired: dict[tuple[str, str], tuple[int, int, str]] = {}
        self.occurrences: dict[tuple[str, str, str], str] = {}  # the job of each, by queue, schedule and moment
        self._seen: dict[str, Callable[..., None]] = {
            "enqueue": self._enqueue,
            "claim": self._claim,
            "finish": self._finish,
            "heartbeat": self._heartbeat,
            "leave": self._leave,
            "declare_dead": self._declare_dead,
            "take_stalled": self._take_stalled,
            "fire": self._fire,
            "reschedule": self._reschedule,
            "retry": self._retry,
        }
        self.trace: Callable[[str], None] | None = None
        self.over = False  # nothing is noted any more

    def wrong(self, what: str) -> None:
        if len(self.wrongs) < MOST_WRONGS and not self.over:
            self.wrongs.append(f"{self._elapsed():.3f} s: {what}")
        if self.trace is not None:
            self.trace(f"WRONG: {what}")

    def answered(self, process: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], said: Any) -> None:
        """The store did this."""
        if self.trace is not None:
            self.trace(f"{process}: {name} {args!r:.2000} -> {said!r:.2000}")
        seen = self._seen.get(name)
        if seen is not None:
            seen(said, *args, **kwargs)

    # --- handlers ---

    def began(self, context: Context, process: str) -> Run:
        run = Run(
            task=context.task, job=context.job_id, queue=context.queue, dispatch=context.dispatch,
            attempt=context.attempt, process=process, began=self._elapsed(),
        )  # fmt: skip
        self.runs.append(run)
        self._open.append(run)
        key = (run.queue, run.job, run.dispatch)
        if self.trace is not None:
            self.trace(f"{process}: starts {run.job} at dispatch {run.dispatch}")
        if key in self._started:
            self.wrong(f"job {run.job} was started twice at dispatch {run.dispatch}")
        self._started.add(key)
        due, above = self._due.get((run.queue, run.job), (0, 0))
        if self._now() < due and run.dispatch > above:
            self.wrong(f"job {run.job} was started {due - self._now()} ms early")
        return run

    def running(self, alive: Callable[[str], bool]) -> int:
        """Handlers that have begun and not ended, in processes that live."""
        self._open = [run for run in self._open if run.ended is None and alive(run.process)]
        return len(self._open)

    # --- what the store did ---

    def _enqueue(self, said: Sequence[Enqueued], jobs: Sequence[NewJob], *, now: int, grace: int) -> None:
        for job, answer in zip(jobs, said, strict=True):
            if answer.admission in _MADE:
                self._made(job)
                if job.run_at is not None:
                    self._due.setdefault((job.queue, job.id), (job.run_at, 0))

    def _reschedule(self, said: object, queue: str, delays: Sequence[Delay], **_: object) -> None:
        for delay in delays:
            self._due.pop((queue, delay.id), None)

    def _retry(self, said: Sequence[object], queue: str, ids: Sequence[str], **_: object) -> None:
        for id, answer in zip(ids, said, strict=True):
            if isinstance(answer, Ready):
                self.final.pop((queue, id), None)

    def _claim(self, said: Sequence[Claimed], queue: str, owner: str, tickets: Sequence[Any], **_: object) -> None:
        for ticket, answer in zip(tickets, said, strict=True):
            if answer.verdict is not Verdict.CLAIMED:
                continue
            key = (queue, answer.id, ticket.dispatch)
            if key in self._claimed:
                self.wrong(f"job {answer.id} was claimed twice at dispatch {ticket.dispatch}")
            if (queue, owner) in self._dead:
                self.wrong(f"job {answer.id} was claimed by a boot that had been declared dead")
            if (queue, owner) in self._left:
                self.wrong(f"job {answer.id} was claimed by a boot that had left")
            if (queue, answer.id) in self.final:
                self.wrong(f"job {answer.id} was claimed after it had {self.final[queue, answer.id]}")
            self._claimed[key] = owner
            if answer.fence <= self._fences.get((queue, answer.id), 0):
                self.wrong(f"the fence of job {answer.id} went back to {answer.fence}")
            self._fences[queue, answer.id] = answer.fence

    def handed(self, process: str, handed: Handed, owner: str) -> None:
        """To a standing claim, in the step that recorded it."""
        if self.trace is not None:
            self.trace(f"{process}: is handed {handed.id}")
        claimed = Claimed(handed.id, Verdict.CLAIMED, handed.fence, attempt=1)
        self._claim([claimed], handed.queue, owner, [Ticket(handed.id, 1)])

    def _finish(self, said: Sequence[Finished], queue: str, outcomes: Sequence[Outcome], **_: object) -> None:
        for outcome, answer in zip(outcomes, said, strict=True):
            if answer.finish is not Finish.DONE:
                continue
            key = (queue, outcome.id, outcome.dispatch)
            if key in self._finished:
                self.wrong(f"two ends of job {outcome.id} were accepted at dispatch {outcome.dispatch}")
            self._finished.add(key)
            if self._claimed.get(key) != outcome.owner:
                self.wrong(f"an end of job {outcome.id} was accepted of a boot that had not claimed that dispatch")
            if (queue, outcome.owner) in self._dead:
                self.wrong(f"an end of job {outcome.id} was accepted of a boot that had been declared dead")
            if answer.state is not None and answer.state.final:
                self._ended(queue, outcome.id, answer.state.value)
            elif outcome.run_at is not None:
                self._due[queue, outcome.id] = outcome.run_at, outcome.dispatch

    def _ended(self, queue: str, id: str, state: str) -> None:
        if (queue, id) in self.final:
            self.wrong(f"job {id} had {self.final[queue, id]}, and then {state}")
        self.final[queue, id] = state

    def _heartbeat(self, said: Any, boot: str, queues: Sequence[str], **_: object) -> None:
        if said.alive:
            for queue in queues:
                self._beats[queue, boot] = self._elapsed()

    def _leave(self, said: None, boot: str, queues: Sequence[str]) -> None:
        """It claims nothing from now on. A heartbeat that hung on its way may bring its row back: nobody's."""
        self._left.update((queue, boot) for queue in queues)

    def _declare_dead(self, said: bool, queue: str, boot: str, **_: object) -> None:
        if not said or (queue, boot) in self._dead:
            return
        self._dead[queue, boot] = self._elapsed()
        lived = self._beats.get((queue, boot))
        if lived is not None and self._elapsed() - lived < self._lease and (queue, boot) not in self._left:
            self.wrong(f"a boot was declared dead {self._elapsed() - lived:.3f} s after its heartbeat")

    def _take_stalled(self, said: Stalled, queue: str, boot: str, **_: object) -> None:
        for id in said.failed:
            self._ended(queue, id, "failed")

    def _fire(self, said: Sequence[Fired], queue: str, firings: Sequence[Firing], **_: object) -> None:
        for firing, answer in zip(firings, said, strict=True):
            if answer.fire is not Fire.FIRED:
                continue
            this = (firing.revision, firing.due, firing.by)
            before = self._fired.get((queue, firing.id))
            if before is not None and this != before and this[:2] <= before[:2]:
                self.wrong(f"schedule {firing.id} was fired for {firing.due}, which had been fired")
            self._fired[queue, firing.id] = this
            for job, enqueued in zip(firing.jobs, answer.enqueued, strict=False):
                if enqueued.admission in _MADE:
                    self._made(job)

    def _made(self, job: NewJob) -> None:
        if b'"schedule"' not in job.payload:
            return
        meta = msgspec.json.decode(decode_body(job.payload).meta or b"{}").get("schedule")
        if meta is None or "occurrence" not in meta or meta.get("manual"):
            return
        key = (job.queue, meta["id"], meta["occurrence"])
        known = self.occurrences.setdefault(key, job.id)
        if known != job.id:
            self.wrong(f"occurrence {key[2]} of schedule {key[1]} has two jobs: {known}, {job.id}")
