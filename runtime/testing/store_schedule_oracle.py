"""The contract of schedules once more, as plainly as it can be said: the part of the oracle that knows them."""

from __future__ import annotations

from msgspec import structs

from ...metadata.schedule import Firing, NewSchedule, Resumption, Schedule
from ...metadata.schedules import Fire, Resume, Upsert


class ScheduleOracle:
    def __init__(self) -> None:
        self.known: dict[str, Schedule] = {}
        self.fired: dict[str, tuple[int, int, str]] = {}

    def upsert(self, new: NewSchedule, now: int) -> tuple[str, Upsert, int | None, int]:
        old = self.known.get(new.id)
        if old is None and new.revision is not None:
            return new.id, Upsert.GONE, None, 0
        if old is None:
            fields = structs.asdict(new) | {"revision": 1, "created_at": now, "updated_at": now}
            self.known[new.id] = Schedule(**fields)
            return new.id, Upsert.CREATED, new.next_run, 1
        if (old.trigger, old.definition) == (new.trigger, new.definition):
            return old.id, Upsert.UNCHANGED, old.next_run, old.revision
        if new.revision not in (None, old.revision):
            return old.id, Upsert.CONFLICT, old.next_run, old.revision
        kept = old if old.trigger == new.trigger else new
        changed = structs.replace(
            old, trigger=new.trigger, definition=new.definition, next_run=kept.next_run, state=kept.state
        )
        self._change(changed, now)
        return new.id, Upsert.UPDATED, kept.next_run, old.revision + 1

    def fire(self, firing: Firing) -> Fire:
        """With FIRED, the jobs are the caller's to enqueue."""
        old = self.known.get(firing.id)
        this = (firing.due, firing.revision, firing.by)
        if old is None:
            return Fire.GONE
        if old.revision == firing.revision and self.fired.get(old.id) == this:
            return Fire.FIRED
        if old.paused:
            return Fire.PAUSED
        if (old.next_run, old.revision) != (firing.due, firing.revision):
            return Fire.MOVED
        self.known[old.id] = structs.replace(old, next_run=firing.next_run, state=firing.state)
        self.fired[old.id] = this
        return Fire.FIRED

    def pause(self, id: str, now: int) -> bool:
        old = self.known.get(id)
        if old is not None and not old.paused:
            self._change(structs.replace(old, paused=True), now)
        return old is not None

    def resume(self, resumption: Resumption, now: int) -> Resume:
        old = self.known.get(resumption.id)
        if old is None:
            return Resume.GONE
        if not old.paused:
            return Resume.RUNNING
        if old.revision != resumption.revision:
            return Resume.MOVED
        self._change(structs.replace(old, paused=False, next_run=resumption.next_run, state=resumption.state), now)
        return Resume.RESUMED

    def remove(self, id: str) -> bool:
        self.fired.pop(id, None)
        return self.known.pop(id, None) is not None

    def due(self, now: int) -> set[str]:
        return {id for id, one in self._awake() if one <= now}

    def next_run(self, *, without: set[str]) -> int | None:
        return min((one for id, one in self._awake() if id not in without), default=None)

    def _awake(self) -> list[tuple[str, int]]:
        return [(id, one.next_run) for id, one in self.known.items() if not one.paused and one.next_run is not None]

    def _change(self, schedule: Schedule, now: int) -> None:
        self.known[schedule.id] = structs.replace(schedule, revision=schedule.revision + 1, updated_at=now)
