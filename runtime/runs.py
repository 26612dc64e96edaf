"""The runs of one worker: which there are, how they are interrupted, and the table of dispatches it has started.

The table answers a claim's `mine`: a ticket may come again after its claim, and its job must not be started twice. What
has ended is forgotten once every claim that was sent before its end is answered: an answer may still speak of it.

What is claimed while all slots are taken waits for one, and the queues take turns: a job of a quiet queue does not wait
behind those of a busy one. No more of them start in one tick of the loop than the worker's pace says, so that what
arrives meanwhile is read within a millisecond or so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

from .actor import Stage
from .finisher import Finisher, Spawn
from .pace import Pace
from .run import Interruption, Run
from .runner import Runner

NAMED = 3
DEFIANCE_SECONDS = 0.5  # what an interrupted async handler may take to end before its outcome is recorded without it


class Runs:
    """`spawn` runs what must not fail in silence; `released` is called for each run that has left its slot, or will not
    have one, `changed` for each whose outcome was recorded."""

    def __init__(
        self,
        stage: Stage,
        *,
        pace: Pace,
        spawn: Spawn,
        lease_is_certain: Callable[[], bool],
        released: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.started = 0
        self.lost_before = 0  # those here, ended ones included, that some worker has lost once or more often
        self._closed = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._stage = stage
        self._loop = asyncio.get_running_loop()
        self._spawn = spawn
        self._released = released
        self._changed = changed
        self._starts = pace.starts
        self._runner = Runner(stage, lease_is_certain=lease_is_certain, released=self._slot_left)
        self._finisher = Finisher(stage, pace=pace, ended=self._ended, spawn=spawn)
        self._runs: dict[tuple[str, str], Run] = {}
        self._dispatches: dict[tuple[str, str, int], None] = {}
        self._forgettable: deque[tuple[int, tuple[str, str, int]]] = deque()  # and the next claim's number at its end
        self._claims: dict[int, None] = {}  # numbers of those that are unanswered, in their order
        self._next_claim = 1
        self._slots = stage.options.concurrency
        self._metrics = stage.metrics
        self._waiting: dict[str, deque[Run]] = {}  # for a slot, by queue; the queue whose turn it is first
        self._starting = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def late_finishes(self) -> int:
        """Ends of runs that were refused, since their lease had been lost."""
        return self._finisher.late_finishes

    @property
    def has_room(self) -> bool:
        return self._finisher.has_room

    def has(self, key: tuple[str, str]) -> bool:
        """Whether a run of that queue and job is here: it waits, is under way, or its end is not answered yet."""
        return key in self._runs

    def in_words(self) -> str:
        """The oldest of them, and how many others there are."""
        if not self._runs:
            return "a handler goes on in a thread after its timeout, or the store does not answer"
        names = [f"job {run.ticket.id} of task {run.ticket.task}" for run in islice(self._runs.values(), NAMED)]
        more = len(self._runs) - len(names)
        return f"{', '.join(names)}{f' and {more} more' if more else ''} did not end"

    def of(self, queue: str, boot: str) -> int:
        """How many of them are of that queue, claimed under that boot id."""
        return sum(run.queue == queue and run.boot == boot for run in self._runs.values())

    @property
    def next_claim(self) -> int:
        """The number of the claim that is sent next."""
        return self._next_claim

    def answered(self, before: int) -> bool:
        """Whether each claim with a smaller number is."""
        return next(iter(self._claims), before) >= before

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Around a claim, from before it is sent until its answer was looked at."""
        number = self._next_claim
        self._next_claim += 1
        self._claims[number] = None
        oldest = next(iter(self._claims))
        while self._forgettable and self._forgettable[0][0] <= oldest:
            self._dispatches.pop(self._forgettable.popleft()[1], None)
        try:
            yield
        finally:
            del self._claims[number]

    def knows(self, queue: str, job_id: str, dispatch: int) -> bool:
        """Whether this boot has started that dispatch, and has not forgotten it."""
        return (queue, job_id, dispatch) in self._dispatches

    def is_new(self, queue: str, job_id: str, dispatch: int) -> bool:
        """Whether this boot has not yet started that dispatch; from now on it has."""
        key = (queue, job_id, dispatch)
        if key in self._dispatches:
            return False
        self._dispatches[key] = None
        return True

    def start(self, run: Run) -> None:
        """As soon as there is a slot, and at the soonest with the next `begin`."""
        self._runs[run.key] = run
        self.lost_before += run.claimed.stalled > 0
        self.idle.clear()
        self._waiting.setdefault(run.queue, deque()).append(run)

    def waits(self, queue: str) -> bool:
        """Whether a run of that queue waits for a slot."""
        return queue in self._waiting

    def begin(self) -> None:
        if self._waiting and not self._starting:
            self._start_waiting()

    def give_back(self, run: Run, reason: Interruption) -> None:
        """One that has not begun."""
        self._interrupt(run, reason)

    def hand_back(self, *, claimed_before: int, soon: int = 0) -> None:
        """Runs that have been waiting for a slot since then: others may have one free. `soon`: if no more than so many
        wait, all have one in a moment; given to others, they would come behind whatever the broker holds."""
        if sum(map(len, self._waiting.values())) <= soon:
            return
        for runs in list(self._waiting.values()):
            for run in [run for run in runs if run.started_at < claimed_before]:
                self._interrupt(run, Interruption.WAITED)

    def cancel(self, key: tuple[str, str]) -> None:
        """Somebody asked for it; unknown jobs have ended."""
        run = self._runs.get(key)
        if run is not None:
            self._interrupt(run, Interruption.CANCELLED)

    def interrupt(self, reason: Interruption, *, boot: str | None = None) -> int:
        """All runs, or those of one boot id; how many."""
        runs = [run for run in self._runs.values() if boot is None or run.boot == boot]
        for run in runs:
            self._interrupt(run, reason)
        return len(runs)

    async def close(self) -> None:
        """What still runs is interrupted and not waited for: it has been handed back, or its lease will run out."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await self._runner.close()

    def _start_waiting(self) -> None:
        """Some of them; the others in the next tick."""
        self._starting = False
        starts, now = 0, self._stage.clock.now()
        while self._waiting and self._slots > 0 and not self._closed:
            if starts == self._starts:
                self._starting = True
                self._loop.call_soon(self._start_waiting)
                return
            queue = next(iter(self._waiting))
            runs = self._waiting.pop(queue)
            run = runs.popleft()
            if runs:
                self._waiting[queue] = runs  # behind the others
            self._slots -= 1
            self.started += 1
            starts += 1
            run.started_at = now
            if self._metrics is not None:
                self._metrics.started(run)
            # A task of nobody's group: a handler that defies its interruption holds up nothing but its slot.
            self._tasks.add(self._loop.create_task(self._perform(run)))

    def _slot_left(self) -> None:
        self._slots += 1
        self._released()
        if self._waiting and not self._starting:
            self._starting = True
            self._loop.call_soon(self._start_waiting)

    def _interrupt(self, run: Run, reason: Interruption) -> None:
        waiting = self._waiting.get(run.queue)
        if waiting is not None and run in waiting:
            waiting.remove(run)
            if not waiting:
                del self._waiting[run.queue]
            self._released()
            run.stop(reason)
            if reason is Interruption.LOST:  # somebody else will run it, and nothing was done here
                self._finisher.lost_unbegun(run)
                self._ended(run)
            else:
                self._finisher.finish(run, self._runner.interrupted(run, reason))
            return
        run.stop(reason)
        self._loop.call_later(DEFIANCE_SECONDS, self._abandon, run, reason)

    def _abandon(self, run: Run, reason: Interruption) -> None:
        if run.outcome is None and run.abandonable and not self._closed:
            self._finisher.finish(run, self._runner.interrupted(run, reason))

    async def _perform(self, run: Run) -> None:
        """A whole task; it cleans up after itself, which is cheaper than a callback that does."""
        task = asyncio.current_task(self._loop)  # named: finding the running loop costs as much as checking arguments
        assert task is not None
        try:
            outcome = await self._runner.run(run, task)
            if run.outcome is None and not self._closed:
                self._finisher.finish(run, outcome)
        except Exception as error:  # no task's doing but ours: it ends the worker
            if not self._closed:
                self._spawn(_raise(error))
        finally:
            self._tasks.discard(task)

    def _ended(self, run: Run) -> None:
        self._forgettable.append((self._next_claim, (run.queue, run.ticket.id, run.ticket.dispatch)))
        self.lost_before -= run.claimed.stalled > 0
        run.context = None  # which knows the run: the two would be left to the garbage collector, and stop the loop
        if self._runs.get(run.key) is run:
            del self._runs[run.key]
        if not self._runs:
            self.idle.set()
        self._changed()


async def _raise(error: BaseException) -> None:
    raise error
