"""When a worker stands for jobs with its store, for how many, and what it does when the way to that is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from callboard.metadata.errors import MetadataError, StoreError, StoreUnavailable
from callboard.metadata.standing import Handed, Hearing, StandingClaims
from callboard.runtime.standing import FAULT_SECONDS, MOST, REST_SECONDS, Standing

AWAY = StoreUnavailable("fake", "away")
FORBIDDEN = StoreError("no permission")


class FakeClaims:
    """`stood`: the calls, in order; `said`: all that was asked of it. `faults` of the next calls of `hear`, then of
    `stand`; `refusals`: that many calls of `stand` are answered False."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.stood: list[tuple[str, str, int]] = []
        self.hearers: list[FakeHearing] = []
        self.hear_faults: list[MetadataError] = []
        self.stand_faults: list[MetadataError] = []
        self.refusals = 0

    async def hear(
        self, owner: str, queues: Sequence[str], *, told: Callable[[Handed], None], deaf: Callable[[], None]
    ) -> Hearing:
        self.said.append(f"hear {owner}")
        if self.hear_faults:
            raise self.hear_faults.pop(0)
        self.hearers.append(FakeHearing(self, told, deaf))
        return self.hearers[-1]

    async def stand(self, queue: str, owner: str, *, jobs: int) -> bool:
        self.said.append(f"stand {queue} {jobs}")
        if self.stand_faults:
            raise self.stand_faults.pop(0)
        self.stood.append((queue, owner, jobs))
        self.refusals -= 1
        return self.refusals < 0


class FakeHearing:
    def __init__(self, claims: FakeClaims, told: Callable[[Handed], None], deaf: Callable[[], None]) -> None:
        self.told, self.deaf = told, deaf
        self._claims = claims

    async def sync(self) -> None:
        self._claims.said.append("sync")

    async def close(self) -> None:
        self._claims.said.append("close")


class Scene:
    """A worker of queues `a` and `b` with `room`, but none for those that are `full`. `elapsed`: its clock; `slept`:
    its pauses; `taken`: what it was handed, as boot and id."""

    def __init__(self, *, offered: bool = True) -> None:
        self.claims = FakeClaims()
        self.room: int | None = 20
        self.full: set[str] = set()
        self.boot = "boot"
        self.stopping = asyncio.Event()  # nothing sleeps on the stage then
        self.elapsed = 1000.0
        self.slept: list[float] = []
        self.taken: list[tuple[str, str]] = []
        stage: Any = SimpleNamespace(
            clock=SimpleNamespace(elapsed=lambda: self.elapsed, sleep=_for_ever),
            offered=self._offered if offered else lambda _: None,
            sleep=self._sleep,
            stopping=self.stopping,
            backoff=float,
            log=logging.getLogger("test"),
        )
        self.standing = Standing(
            stage,
            queues=["a", "b"],
            boot=lambda: self.boot,
            room=lambda queue: 0 if queue in self.full else self.room,
            take=self._take,
            missed=self._miss,
        )
        self._serving: asyncio.Task[None] | None = None

    def _offered(self, capability: type) -> FakeClaims:
        assert capability is StandingClaims
        return self.claims

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def _take(self, boot: str, handed: Handed) -> None:
        self.taken.append((boot, handed.id))
        if self.room is not None:
            self.room -= 1
        self.standing.review()

    def _miss(self) -> None:
        self.claims.said.append("missed")

    @property
    def serving(self) -> asyncio.Task[None]:
        if self._serving is None:
            self._serving = asyncio.create_task(self.standing.serve())
        return self._serving

    async def settle(self) -> list[tuple[str, int]]:
        """Let it do what it can without a change; what it stood for since the last call."""
        assert not self.serving.done()
        for _ in range(50):
            await asyncio.sleep(0)
        stood, self.claims.stood = self.claims.stood, []
        return [(queue, jobs) for queue, _, jobs in stood]

    def is_handed(self, queue: str, *ids: str) -> None:
        for id in ids:
            self.claims.hearers[-1].told(Handed(queue, id, 1, b"{}"))

    async def room_is(self, room: int | None) -> list[tuple[str, int]]:
        self.room = room
        self.standing.review()
        return await self.settle()


async def _for_ever(seconds: float) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    scene.serving.cancel()
    await asyncio.wait([scene.serving])


async def test_it_stands_in_each_queue_for_the_slots_it_has_but_no_more_than_the_most(scene: Scene) -> None:
    assert await scene.settle() == [("a", MOST), ("b", MOST)]
    assert scene.claims.said[0] == "hear boot"
    assert scene.standing.hears


async def test_with_a_few_slots_it_stands_for_those(scene: Scene) -> None:
    scene.room = 3
    assert await scene.settle() == [("a", 3), ("b", 3)]


async def test_without_a_slot_it_hears_and_stands_for_nothing(scene: Scene) -> None:
    scene.room = 0
    assert await scene.settle() == []
    assert await scene.room_is(1) == [("a", 1), ("b", 1)]


async def test_what_is_handed_over_is_taken_under_the_boot_that_stood_for_it(scene: Scene) -> None:
    await scene.settle()
    scene.is_handed("a", "one", "two")
    assert scene.taken == [("boot", "one"), ("boot", "two")]


async def test_it_stands_again_in_a_queue_once_more_than_half_of_what_it_stood_for_has_come(scene: Scene) -> None:
    await scene.settle()
    scene.is_handed("a", *"1234")
    assert await scene.settle() == []
    scene.is_handed("a", "5")
    assert await scene.settle() == [("a", MOST)]


async def test_once_no_slot_is_left_it_stands_nowhere_and_rests_before_it_stands_again(scene: Scene) -> None:
    await scene.settle()
    assert await scene.room_is(0) == [("a", 0), ("b", 0)]
    assert await scene.room_is(5) == []
    scene.elapsed += REST_SECONDS - 0.01
    assert await scene.room_is(5) == []
    scene.elapsed += 0.02
    assert await scene.room_is(5) == [("a", 5), ("b", 5)]


async def test_once_it_has_rested_it_stands_again_though_nothing_else_changes(scene: Scene) -> None:
    await scene.settle()
    await scene.room_is(0)
    assert await scene.room_is(5) == []
    scene.elapsed += REST_SECONDS
    async with asyncio.timeout(2):
        while len(scene.claims.stood) < 2:
            await asyncio.sleep(0.01)
    assert [jobs for _, _, jobs in scene.claims.stood] == [5, 5]


async def test_while_there_may_be_room_in_a_moment_it_stands_as_before(scene: Scene) -> None:
    await scene.settle()
    assert await scene.room_is(None) == []
    scene.is_handed("a", *"12345")
    assert await scene.settle() == []
    assert await scene.room_is(20) == [("a", MOST)]


async def test_a_queue_without_room_is_left_and_the_others_are_not(scene: Scene) -> None:
    await scene.settle()
    scene.full = {"b"}
    assert await scene.room_is(20) == [("b", 0)]
    scene.full.clear()
    scene.elapsed += REST_SECONDS
    assert await scene.room_is(20) == [("b", MOST)]


async def test_when_it_ends_it_stands_for_nothing_and_hears_out_what_was_handed_over(scene: Scene) -> None:
    await scene.settle()
    scene.claims.said.clear()
    scene.standing.end()
    async with asyncio.timeout(10):
        await scene.serving
    assert [said for said in scene.claims.said if said != "missed"] == ["stand a 0", "stand b 0", "sync", "close"]
    assert not scene.standing.hears


async def test_when_the_way_to_the_store_is_lost_it_hears_anew_and_a_job_may_have_been_missed(scene: Scene) -> None:
    await scene.settle()
    assert "missed" not in scene.claims.said
    scene.claims.said.clear()
    scene.claims.hear_faults = [AWAY]
    scene.claims.hearers[0].deaf()
    assert await scene.settle() == [("a", MOST), ("b", MOST)]
    *before, since_it_is_back = " ".join(scene.claims.said).rpartition("hear boot")
    assert before == ["close hear boot ", "hear boot"]
    assert "missed" in since_it_is_back  # before that nobody could look


async def test_another_boot_hears_and_stands_for_itself(scene: Scene) -> None:
    await scene.settle()
    scene.boot = "another"
    await scene.room_is(0)
    scene.elapsed += REST_SECONDS
    scene.room = 2
    scene.standing.review()
    for _ in range(50):
        await asyncio.sleep(0)
    assert "hear another" in scene.claims.said
    assert scene.claims.stood == [("a", "another", 2), ("b", "another", 2)]
    scene.is_handed("a", "one")
    assert scene.taken == [("another", "one")]


async def test_a_store_that_is_away_is_asked_again_later_and_later(scene: Scene) -> None:
    scene.claims.hear_faults = [AWAY, AWAY]
    scene.claims.stand_faults = [AWAY]
    assert await scene.settle() == [("a", MOST), ("b", MOST)]
    assert scene.slept == [1, 2, 1]


async def test_while_a_store_does_not_take_its_claim_it_hears_what_was_handed_over_before(scene: Scene) -> None:
    await scene.settle()
    scene.claims.said.clear()
    scene.claims.stand_faults = [AWAY, AWAY]
    scene.is_handed("a", *"12345")
    await scene.settle()
    scene.is_handed("a", "6")
    assert [id for _, id in scene.taken] == [*"123456"]
    assert not {"close", "missed"} & set(scene.claims.said)


async def test_while_the_worker_stops_a_store_that_is_away_is_not_asked_without_a_pause(scene: Scene) -> None:
    scene.claims.hear_faults = [AWAY] * 1000
    scene.stopping.set()
    serving = scene.serving
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(scene.claims.said) < 5
    scene.standing.end()
    serving.cancel()


async def test_a_store_that_forbids_it_is_told_once_and_not_asked_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.claims.hear_faults = [FORBIDDEN]
    async with asyncio.timeout(10):
        await scene.serving
    (told,) = caplog.records
    assert (told.levelname, told.getMessage()) == ("WARNING", "jobs come by their tickets alone: no permission")
    assert not scene.standing.hears


async def test_after_a_fault_of_the_store_it_stands_again_and_the_fault_is_told_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.claims.stand_faults = [FORBIDDEN, FORBIDDEN]
    assert await scene.settle() == [("a", MOST), ("b", MOST)]
    assert scene.slept.count(FAULT_SECONDS) == 2
    (told,) = caplog.records
    assert (told.levelname, told.getMessage()) == ("ERROR", "jobs come by their tickets alone for now: no permission")


async def test_a_store_that_does_not_offer_it_is_left_alone() -> None:
    scene = Scene(offered=False)
    async with asyncio.timeout(10):
        await scene.serving
    scene.standing.review()
    await scene.standing.heard()
    assert scene.claims.said == []


async def test_where_its_row_is_not_there_yet_it_stands_again_a_little_later(scene: Scene) -> None:
    scene.claims.refusals = 1
    assert await scene.settle() == [("a", MOST), ("b", MOST), ("a", MOST)]
    assert scene.slept == [1]


async def test_what_was_handed_over_before_has_been_told_once_it_has_heard(scene: Scene) -> None:
    await scene.settle()
    scene.claims.said.clear()
    await scene.standing.heard()
    assert scene.claims.said == ["sync"]
