"""What the conformance tests of schedules stand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import pytest_asyncio

from ...metadata.schedule import Firing, NewSchedule, Resumption, Schedule
from ...metadata.schedules import DueSchedules, Fired, Resume, Schedules, Upserted
from .store_scene import GRACE, MANY, QUEUE, Scene, StoreSuite

LATER = 60_000  # ms


class Timetable:
    """The schedules of a scene's queue, acted on with few words."""

    def __init__(self, scene: Scene, schedules: Schedules) -> None:
        self.scene = scene
        self.schedules = schedules

    def new(self, id: str = "nightly", **fields: Any) -> NewSchedule:
        fields.setdefault("queue", QUEUE)
        fields.setdefault("trigger", b"every night")
        fields.setdefault("definition", b"tidy up")
        fields.setdefault("state", b"")
        fields.setdefault("next_run", self.scene.now)
        if fields["queue"] not in self.scene.touched:
            self.scene.touched.append(fields["queue"])
        return NewSchedule(id=id, **fields)

    async def put(self, id: str = "nightly", **fields: Any) -> Upserted:
        (answer,) = await self.schedules.upsert([self.new(id, **fields)], now=self.scene.now)
        return answer

    async def find(self, id: str = "nightly") -> Schedule | None:
        (schedule,) = await self.schedules.get(QUEUE, [id])
        return schedule

    async def schedule(self, id: str = "nightly") -> Schedule:
        schedule = await self.find(id)
        assert schedule is not None, f"there is no schedule {id!r}"
        return schedule

    async def look(self, *, limit: int = MANY) -> DueSchedules:
        return await self.schedules.due([QUEUE], now=self.scene.now, limit=limit)

    async def due(self) -> list[str]:
        return [schedule.id for schedule in (await self.look()).schedules]

    def firing(self, id: str = "nightly", **fields: Any) -> Firing:
        fields.setdefault("due", self.scene.now)
        fields.setdefault("revision", 1)
        fields.setdefault("next_run", fields["due"] + LATER)
        fields.setdefault("state", b"fired")
        fields.setdefault("by", "scheduler-a")
        fields.setdefault("jobs", (self.scene.new(f"{id}@{fields['due']}"),))
        return Firing(id=id, **fields)

    async def fire(self, id: str = "nightly", **fields: Any) -> Fired:
        (answer,) = await self.fires(self.firing(id, **fields))
        return answer

    async def fires(self, *firings: Firing) -> Sequence[Fired]:
        return await self.schedules.fire(QUEUE, firings, now=self.scene.now, grace=GRACE)

    async def pause(self, id: str = "nightly") -> bool:
        (answer,) = await self.schedules.pause(QUEUE, [id], now=self.scene.now)
        return answer

    async def resume(self, id: str = "nightly", *, revision: int = 2, **fields: Any) -> Resume:
        fields.setdefault("next_run", self.scene.now + LATER)
        fields.setdefault("state", b"resumed")
        resumption = Resumption(id=id, revision=revision, **fields)
        (answer,) = await self.schedules.resume(QUEUE, [resumption], now=self.scene.now)
        return answer

    async def remove(self, id: str = "nightly") -> bool:
        (answer,) = await self.schedules.remove(QUEUE, [id])
        return answer


class ScheduleSuite(StoreSuite):
    @pytest_asyncio.fixture
    async def timetable(self, scene: Scene) -> Timetable:
        if Schedules not in scene.store.capabilities:
            pytest.skip(f"the store {scene.store.scheme} does not offer Schedules")
        return Timetable(scene, scene.store.get(Schedules))
