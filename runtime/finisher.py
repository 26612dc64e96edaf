"""Ends runs: outcomes go to the store in batches, and what the store answers is told to whoever listens.

An outcome is repeated until the store answers. It names (dispatch, owner), so a repeat of one that took effect is
answered `recorded`, and one whose lease was lost is refused and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..metadata.contract import MAX_BATCH, Ending, Finish, Finished, Jobs, Outcome, Ready
from ..metadata.errors import StoreError
from ..metadata.job import State
from .actor import Stage
from .pace import Pace
from .results import ErrorInfo, encode_error
from .run import Run
from .wire import Event, body_of, encode_body

SLOW_SECONDS = 0.5  # without an answer of the store
EVENT_RESULT_BYTES = 1024  # a result up to this travels with its event, and whoever waits for it need not ask the store

Spawn = Callable[[Coroutine[object, object, None]], object]

_EVENTS = {
    Ending.COMPLETED: "completed",
    Ending.FAILED: "failed",
    Ending.CANCELLED: "cancelled",
    Ending.RETRY: "retried",
    Ending.RELEASE: "released",
    Ending.PARK: "parked",
}
_BROUGHT_BACK = {Ending.RETRY, Ending.RELEASE, Ending.PARK}


class Finisher:
    """`ended` is called for each run whose outcome was answered; `late_finishes` counts those whose lease was lost.

    One call for each queue is under way at a time, and what ends meanwhile goes into the next; more, as the pace says,
    while full ones wait.
    """

    def __init__(self, stage: Stage, *, pace: Pace, ended: Callable[[Run], None], spawn: Spawn) -> None:
        self.late_finishes = 0
        self._pace = pace
        self._stage = stage
        self._jobs = stage.capability(Jobs)
        self._dispatcher = stage.dispatcher
        self._ended = ended
        self._spawn = spawn
        self._waiting: dict[str, deque[Run]] = {}
        self._calls: dict[str, int] = {}  # under way, by queue
        self._unfinished = 0
        self._waits_since = 0.0  # by clock.elapsed(): the last answer, or what has ended since all were answered
        self._metrics = stage.metrics

    @property
    def has_room(self) -> bool:
        """Whether so few outcomes are unanswered that more runs may be started. All of them would run again if this
        worker died now: fewer are put up with where the store is slow, and they are old."""
        most = self._pace.unanswered
        if self._stage.clock.elapsed() - self._waits_since > SLOW_SECONDS:
            most = min(most, MAX_BATCH)
        return self._unfinished < self._stage.options.concurrency + most

    def finish(self, run: Run, outcome: Outcome) -> None:
        run.outcome = outcome
        if self._metrics is not None:
            self._metrics.ended(run, outcome)
        if self._unfinished == 0:
            self._waits_since = self._stage.clock.elapsed()
        self._unfinished += 1
        waiting = self._waiting.setdefault(run.queue, deque())
        waiting.append(run)
        calls = self._calls.get(run.queue, 0)
        if calls == 0 or (calls < self._pace.end_calls and len(waiting) >= self._pace.batch):
            self._calls[run.queue] = calls + 1
            self._spawn(self._send(run.queue))  # begins with the next tick: whatever else ends in this one goes along

    async def _send(self, queue: str) -> None:
        waiting = self._waiting[queue]
        batch = self._pace.batch
        while waiting and (self._calls[queue] == 1 or len(waiting) >= batch):
            runs = [waiting.popleft() for _ in range(min(len(waiting), batch))]
            outcomes = [run.outcome for run in runs if run.outcome is not None]
            answers = await self._record(queue, outcomes)
            now, self._waits_since = self._stage.clock.now(), self._stage.clock.elapsed()
            for run, outcome, answer in zip(runs, outcomes, answers, strict=True):
                self._unfinished -= 1
                if answer.finish is Finish.REFUSED:
                    self._late(run, answer)
                else:
                    self._done(run, outcome, answer, now)
                self._ended(run)
        self._calls[queue] -= 1

    async def _record(self, queue: str, outcomes: Sequence[Outcome]) -> Sequence[Finished]:
        clock, grace = self._stage.clock, self._stage.settings.grace
        try:
            return await self._stage.patiently(lambda: self._jobs.finish(queue, outcomes, now=clock.now(), grace=grace))
        except StoreError as error:
            if len(outcomes) > 1:  # one of them is at fault; the others must not suffer
                return [answer for one in outcomes for answer in await self._record(queue, [one])]
            if outcomes[0].ending is not Ending.COMPLETED:
                raise
            return await self._record(queue, [_refused_result(outcomes[0], str(error))])

    def _done(self, run: Run, outcome: Outcome, answer: Finished, now: int) -> None:
        ticket, dispatcher = run.ticket, self._dispatcher
        taken_early = outcome.run_at is not None and outcome.run_at > now  # by a scanner, which sends it; repeated call
        if answer.state is State.WAITING and not ticket.later and not taken_early:
            # Of one that came later a relay sends the ticket: its payload is in the store.
            payload = encode_body(body_of(ticket))
            dispatcher.send_soon([Ready(run.queue, ticket.id, answer.dispatch, ticket.priority, payload)])
        if answer.state is State.DELAYED and outcome.run_at is not None:
            dispatcher.delayed_soon(run.queue, outcome.run_at)
        name = "cancelled" if answer.state is State.CANCELLED else _EVENTS[outcome.ending]
        dispatcher.emit(self._event(run, name, outcome, now))

    def _late(self, run: Run, answer: Finished) -> None:
        self.late_finishes += 1
        if self._metrics is not None:
            self._metrics.finished_late(run.queue)
        self._stage.log.warning(
            "refused the end of job %s, dispatch %d by %s: it now is %s at dispatch %d%s; what this run did may "
            "have been done twice",
            run.ticket.id,
            run.ticket.dispatch,
            run.boot[:8],
            answer.state,
            answer.dispatch,
            f" by {answer.owner[:8]}" if answer.owner else "",
        )
        outcome = run.outcome
        if answer.state is None and outcome is not None and outcome.ending in _BROUGHT_BACK:
            self._send_again(run)  # its store knows nothing of it: who claims it adopts it
        late = self._event(run, "late", run.outcome, self._stage.clock.now())
        self._stage.dispatcher.emit(msgspec.structs.replace(late, other=answer.owner))

    def lost_unbegun(self, run: Run) -> None:
        """Its lease was lost while it waited for a slot. Its record brings it back, or, where the store has forgotten
        that, its ticket; else the ticket is a copy."""
        self._send_again(run)

    def _send_again(self, run: Run) -> None:
        """The ticket of a job that is to run, and whose record its store may have lost, by itself or by being restored
        from a backup. Had the job ended, or been removed, a ticket so young would find its tombstone; of an older one
        nobody could tell."""
        window = self._stage.settings.adoption_window_seconds * 1000
        if not run.ticket.later and self._stage.clock.now() - run.sent_at < window:
            payload = encode_body(body_of(run.ticket))
            ticket = Ready(run.queue, run.ticket.id, run.ticket.dispatch, run.ticket.priority, payload)
            self._dispatcher.send_copy_soon(ticket, sent_at=run.sent_at)

    def _event(self, run: Run, name: str, outcome: Outcome | None, now: int) -> Event:
        result: Raw | UnsetType = UNSET
        if name == "completed" and outcome is not None and outcome.result is not None:
            result = Raw(outcome.result) if len(outcome.result) <= EVENT_RESULT_BYTES else UNSET
        return Event(
            event=name,
            job=run.ticket.id,
            queue=run.queue,
            task=run.ticket.task,
            at=now,
            dispatch=run.ticket.dispatch,
            attempt=run.claimed.attempt,
            worker=run.boot,
            error=None if outcome is None or outcome.error is None else _error_line(outcome.error),
            run_at=None if outcome is None else outcome.run_at,
            result=result,
        )


def _error_line(error: bytes) -> str:
    info = msgspec.json.decode(error, type=ErrorInfo)
    return f"{info.type}: {info.message}"[:500]


def _refused_result(outcome: Outcome, reason: str) -> Outcome:
    error = ErrorInfo(type="callboard.ResultRefused", message=f"the store refused what the task returned: {reason}")
    return msgspec.structs.replace(outcome, ending=Ending.FAILED, result=None, error=encode_error(error))
