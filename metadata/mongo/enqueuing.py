"""`enqueue`: one insert for what is new, and a second look at what a unique index refused."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from ..contract import Admission, Enqueued
from ..job import Deduplication, NewJob, State
from .connection import MongoConnection
from .names import TOMBSTONE, job_name, window_key
from .record import TICKETS, Record, Window, write
from .work import Work, settle


async def enqueue(
    connection: MongoConnection, jobs: Sequence[NewJob], *, now: int, grace: int, anew: bool = True
) -> list[Enqueued]:
    """`anew` False: where only a job's tombstone is left, it was recorded before, and is not recorded again."""
    if not jobs:
        return []
    # A moment that is past by the caller's clock may be to come by the store's.
    doubtful = any(job.run_at is not None and job.run_at <= now for job in jobs)
    clock = await connection.clock() if doubtful else now
    due_by = min(now, clock)
    names = {job_name(job.queue, job.id) for job in jobs}
    wanted = [window_key(job.queue, job.deduplication.id) for job in jobs if job.deduplication is not None]
    if len(names) < len(jobs) or len(set(wanted)) < len(wanted) or (wanted and not anew):
        # Entries meet in one document, or a tombstone of one that was replaced may not have its name yet.
        return await _one_by_one(connection, jobs, now=now, due_by=due_by, grace=grace, anew=anew)
    revision = connection.revision()
    records = [_new(job, now=now, due_by=due_by, grace=grace) for job in jobs]
    refused = await connection.insert([{**write(record), "revision": revision} for record in records])
    answers = [Enqueued(record.id, Admission.CREATED, record.job_state, record.dispatch) for record in records]
    places = sorted(refused)
    rest = [jobs[place] for place in places]
    again = await _one_by_one(connection, rest, now=now, due_by=due_by, grace=grace, anew=anew)
    for place, answer in zip(places, again, strict=True):
        answers[place] = answer
    return answers


async def _one_by_one(
    connection: MongoConnection, jobs: Sequence[NewJob], *, now: int, due_by: int, grace: int, anew: bool
) -> list[Enqueued]:
    if not jobs:
        return []

    async def load(work: Work, some: Sequence[NewJob]) -> None:
        keys = [window_key(job.queue, job.deduplication.id) for job in some if job.deduplication is not None]
        await work.load((job_name(job.queue, job.id) for job in some), keys=keys, without=TICKETS)

    def decide(work: Work, job: NewJob) -> Enqueued:
        known = work.find(job_name(job.queue, job.id))
        if known is not None and known.state == TOMBSTONE and not anew:
            return Enqueued(job.id, Admission.CREATED, State.COMPLETED, 0)
        return _admit(work, job, known, now, due_by, grace)

    return await settle(connection, jobs, load, decide)


def _admit(work: Work, job: NewJob, known: Record | None, now: int, due_by: int, grace: int) -> Enqueued:
    if known is not None and known.exists:
        admission = Admission.CREATED if known.payload == job.payload else Admission.EXISTING
        return Enqueued(job.id, admission, known.job_state, known.dispatch)
    wanted = job.deduplication
    if wanted is None:
        return _create(work, job, known, (), now, due_by, grace)
    key = window_key(job.queue, wanted.id)
    place, window = window_of(work, key)
    if place is None or window is None or not window.open(now):
        if place is not None:
            let_go(work, place, key)
        return _create(work, job, known, (_opened(key, wanted, job.id, now),), now, due_by, grace)
    if wanted.extend and wanted.ttl is not None and window.until is not None:
        window = structs.replace(window, until=now + wanted.ttl)
        _set_window(work, place, window)
    holder = work.find_job(job_name(job.queue, window.holder))
    if holder is None:  # its window outlived it
        return Enqueued(window.holder, Admission.DEDUPLICATED, State.COMPLETED, 0)
    if not wanted.replace or holder.state != State.DELAYED:
        return Enqueued(holder.id, Admission.DEDUPLICATED, holder.job_state, holder.dispatch)
    return _replace(work, job, holder, place, window, known, now, due_by, grace)


def _create(
    work: Work, job: NewJob, known: Record | None, windows: tuple[Window, ...], now: int, due_by: int, grace: int
) -> Enqueued:
    if known is None:
        known = _new(job, now=now, due_by=due_by, grace=grace)
        known.set_windows(windows)
        work.add(known)
    else:  # the tombstone becomes the job
        known.become(job)
        known.set_windows((*known.windows, *windows))
        work.index_windows(known, ())
        _begin(known, now, due_by, grace)
    return Enqueued(job.id, Admission.CREATED, known.job_state, known.dispatch)


def _replace(
    work: Work,
    job: NewJob,
    holder: Record,
    place: Record,
    window: Window,
    known: Record | None,
    now: int,
    due_by: int,
    grace: int,
) -> Enqueued:
    """The newcomer takes over the document of the delayed job, and with it the deduplication id: one write, with the
    tombstones laid before it. `known`: what is left of a former job with the newcomer's id."""
    name, old_name, was_sent = job_name(job.queue, job.id), holder.name, holder.dispatch > 0
    gone = _tombstone(old_name, holder, at=now)
    former = _tombstone(name, known, at=known.at) if known is not None and known.state == TOMBSTONE else None
    if known is not None and known.name == name:
        work.give_way(known)
    if place is not holder:
        let_go(work, place, window.key)
    holder.become(job)
    holder.set_windows(
        (
            *(other for other in holder.windows if other.key != window.key),
            structs.replace(window, holder=job.id),
        )
    )
    work.rename(holder, old_name)
    work.index_windows(holder, ())
    _begin(holder, now, due_by, grace)
    if was_sent:
        work.lay(gone, holder, stays=True)
    if former is not None:
        work.lay(former, holder, stays=False)
    return Enqueued(job.id, Admission.REPLACED, holder.job_state, holder.dispatch, gone.id)


def _tombstone(name: str, record: Record, *, at: int) -> Record:
    return Record(name=name, queue=record.queue, state=TOMBSTONE, id=record.id, at=at, last_finish=record.last_finish)


def adopted(work: Work, job: NewJob, dispatch: int, now: int) -> None:
    """Record a job that the store never heard of, as it must have been when its ticket was sent."""
    record = _new(job, now=now, due_by=now, grace=0)
    record.wait(dispatch=dispatch, due=now, now=now)
    shadow = work.find(record.name)
    wanted = job.deduplication
    windows: tuple[Window, ...] = ()
    if wanted is not None:
        key = window_key(job.queue, wanted.id)
        place, window = window_of(work, key)
        if window is None or not window.open(now):
            if place is not None:
                let_go(work, place, key)
            windows = (_opened(key, wanted, job.id, now),)
    if shadow is None:
        record.set_windows(windows)
        work.add(record)
        return
    shadow.become(job)
    shadow.set_windows((*shadow.windows, *windows))
    work.index_windows(shadow, ())
    shadow.wait(dispatch=dispatch, due=now, now=now)


def _new(job: NewJob, *, now: int, due_by: int, grace: int) -> Record:
    record = Record(
        name=job_name(job.queue, job.id),
        queue=job.queue,
        state="",
        id=job.id,
        at=now,
        task=job.task,
        payload=job.payload,
        priority=job.priority,
        created_at=job.created_at,
        run_at=job.run_at,
        expires_at=job.expires_at,
    )
    if job.deduplication is not None:
        record.deduplication_id = job.deduplication.id
        record.set_windows((_opened(window_key(job.queue, job.deduplication.id), job.deduplication, job.id, now),))
    _begin(record, now, due_by, grace)
    return record


def _begin(record: Record, now: int, due_by: int, grace: int) -> None:
    if record.run_at is not None and record.run_at > due_by:
        record.delay(record.run_at)
    else:
        record.wait(dispatch=1, due=now + grace, now=now)


# -- windows ----------------------------------------------------------------------------------------------------------


def window_of(work: Work, key: str) -> tuple[Record | None, Window | None]:
    """The document in which a deduplication id is held, and its window."""
    place = work.find_holder(key)
    if place is None:
        return None, None
    return place, next(window for window in place.windows if window.key == key)


def let_go(work: Work, place: Record, key: str) -> None:
    place.set_windows(window for window in place.windows if window.key != key)
    work.index_windows(place, (key,))


def _set_window(work: Work, place: Record, window: Window) -> None:
    place.set_windows(window if other.key == window.key else other for other in place.windows)


def _opened(key: str, wanted: Deduplication, holder: str, now: int) -> Window:
    return Window(key, holder, None if wanted.ttl is None else now + wanted.ttl)
