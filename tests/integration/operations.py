"""The operations of a store, each with a batch as large as they come, to count what it costs; what has to be there
before (`BEFORE`, else `ENQUEUED`) for it to have something to do; and how much it has done (`DONE`), where it tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from callboard.metadata.contract import (
    Deduplicating,
    Delay,
    Delays,
    Ending,
    Inspection,
    Jobs,
    Outcome,
    QueueControl,
    Ready,
    Retention,
    Sent,
    Store,
    Ticket,
    Workers,
)
from callboard.metadata.job import Keep, NewJob, State

QUEUES = ["emails", "reports"]
Operation = Callable[[Store, int], Awaitable[object]]


def jobs(now: int, *, count: int = 128, state: str = "job", **more: int) -> list[NewJob]:
    return [
        NewJob(id=f"{state}-{n}", queue=QUEUES[n % 2], task="task", payload=bytes(300), created_at=now, **more)  # type: ignore[arg-type]
        for n in range(count)
    ]


def ids(start: int = 0) -> list[str]:
    return [f"job-{n}" for n in range(start, 128, 2)]


OPERATIONS: dict[str, Operation] = {
    "enqueue": lambda s, now: s.get(Jobs).enqueue(jobs(now), now=now, grace=0),
    "published": lambda s, now: s.get(Jobs).published([Sent(j.queue, j.id, 1) for j in jobs(now)], now=now),
    "claim": lambda s, now: s.get(Jobs).claim(
        QUEUES[0], "boot", [Ticket(id, 1) for id in ids()], now=now, keep_expired=Keep()
    ),
    "finish": lambda s, now: s.get(Jobs).finish(
        QUEUES[0],
        [Outcome(id=id, dispatch=1, owner="boot", ending=Ending.COMPLETED, history=b"h") for id in ids()],
        now=now,
        grace=0,
    ),
    "job progress": lambda s, now: s.get(Jobs).progress(QUEUES[0], "job-0", dispatch=1, owner="boot", value=b"v"),
    "cancel": lambda s, now: s.get(Jobs).cancel(QUEUES[0], ids(), now=now, keep=Keep()),
    "retry": lambda s, now: s.get(Jobs).retry(QUEUES[0], ids(), now=now, grace=0),
    "remove": lambda s, now: s.get(Jobs).remove(QUEUES[0], ids(), now=now),
    "take_unpublished": lambda s, now: s.get(Jobs).take_unpublished(QUEUES, now=now, grace=0, limit=128),
    "take_overtaken": lambda s, now: s.get(Jobs).take_overtaken(
        QUEUES, now=now, grace=0, lag=0, sent_before=now, limit=128
    ),
    "take_due": lambda s, now: s.get(Delays).take_due(QUEUES, now=now, grace=0, limit=128),
    "reschedule": lambda s, now: s.get(Delays).reschedule(
        QUEUES[0], [Delay(id, None) for id in ids()], now=now, grace=0
    ),
    "remove delayed": lambda s, now: s.get(Delays).remove(QUEUES[0], ids(), now=now),
    "heartbeat": lambda s, now: s.get(Workers).heartbeat("boot", QUEUES, info=b"", now=now),
    "leave": lambda s, now: s.get(Workers).leave("boot", QUEUES),
    "workers": lambda s, now: s.get(Workers).workers(QUEUES),
    "declare_dead": lambda s, now: s.get(Workers).declare_dead(QUEUES[0], "boot", beat=1, now=now),
    "take_stalled": lambda s, now: s.get(Workers).take_stalled(
        QUEUES[0], "boot", now=now, grace=0, max_stalled=1, error=b"", history=b"", keep=Keep(), limit=128
    ),
    "holder": lambda s, now: s.get(Deduplicating).holder(QUEUES[0], "key", now=now),
    "release": lambda s, now: s.get(Deduplicating).release(QUEUES[0], "key"),
    "register": lambda s, now: s.get(QueueControl).register(QUEUES),
    "queues": lambda s, now: s.get(QueueControl).queues(),
    "pause": lambda s, now: s.get(QueueControl).pause(QUEUES[0]),
    "resume": lambda s, now: s.get(QueueControl).resume(QUEUES[0]),
    "paused": lambda s, now: s.get(QueueControl).paused(QUEUES),
    "clear": lambda s, now: s.get(QueueControl).clear(QUEUES[0], State.WAITING, before=now + 1, limit=128, now=now),
    "get": lambda s, now: s.get(Inspection).get(QUEUES[0], ids()),
    "counts": lambda s, now: s.get(Inspection).counts(QUEUES),
    "page": lambda s, now: s.get(Inspection).page(QUEUES[0], State.WAITING, offset=0, limit=50, newest_first=True),
    "progress": lambda s, now: s.get(Inspection).progress(QUEUES[0], "job-0"),
    "prune": lambda s, now: s.get(Retention).prune(QUEUES, now=now, adoption_window=0, limit=128),
}

EARLIER = 10_000  # ms


def _delayed(s: Store, now: int) -> Awaitable[object]:
    """Jobs that have become due in the meantime."""
    return s.get(Jobs).enqueue(jobs(now - EARLIER, run_at=now - EARLIER // 2), now=now - EARLIER, grace=0)


def _forgettable(s: Store, now: int) -> Awaitable[object]:
    return s.get(Jobs).cancel(QUEUES[0], ids(), now=now - EARLIER, keep=Keep(age=1))


ENQUEUED: Sequence[Operation] = (OPERATIONS["enqueue"],)
BEFORE: Mapping[str, Sequence[Operation]] = {
    "enqueue": (),
    "finish": (*ENQUEUED, OPERATIONS["claim"]),
    "job progress": (*ENQUEUED, OPERATIONS["claim"]),
    "retry": (*ENQUEUED, OPERATIONS["cancel"]),
    "take_overtaken": (*ENQUEUED, lambda s, now: OPERATIONS["published"](s, now - EARLIER)),
    "take_due": (_delayed,),
    "reschedule": (_delayed,),
    "remove delayed": (_delayed,),
    "take_stalled": (*ENQUEUED, OPERATIONS["claim"], OPERATIONS["declare_dead"]),
    "prune": (*ENQUEUED, _forgettable),
}


def _ready(answers: Sequence[object]) -> int:
    return sum(isinstance(answer, Ready) for answer in answers)


DONE: Mapping[str, Callable[[Any], int]] = {
    "job progress": int,
    "retry": _ready,
    "take_unpublished": _ready,
    "take_overtaken": _ready,
    "take_due": lambda due: _ready(due.ready),
    "reschedule": _ready,
    "remove delayed": sum,
    "take_stalled": lambda stalled: _ready(stalled.ready),
    "clear": len,
    "prune": lambda pruned: int(pruned.removed),
}
