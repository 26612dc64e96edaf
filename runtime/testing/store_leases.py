"""What `Leases` promises: one holder at a time, fences that grow, and no end but by who watched or who let go."""

from __future__ import annotations

import asyncio

from ...metadata.contract import Store
from ...metadata.leases import Leases, Lock, Still
from .store_scene import DAY, Scene, StoreSuite

NAME, TTL = "monthly/report", 30_000


class LeaseConformance(StoreSuite):
    async def _take(
        self, scene: Scene, holder: str, *, name: str = NAME, ttl: int = TTL, still: Still | None = None
    ) -> Lock:
        return await scene.store.get(Leases).take(name, holder, ttl=ttl, still=still, now=scene.now)

    async def _renew(self, scene: Scene, holder: str, fence: int) -> bool:
        return await scene.store.get(Leases).renew(NAME, holder, fence=fence)

    async def _release(self, scene: Scene, holder: str, fence: int, *, name: str = NAME) -> bool:
        return await scene.store.get(Leases).release(name, holder, fence=fence, now=scene.now)

    async def test_a_free_lock_is_granted_with_a_fence_of_the_stores_clock(self, scene: Scene) -> None:
        lock = await self._take(scene, "me")
        assert (lock.granted, lock.ttl) == (True, TTL)
        assert lock.fence >= scene.now

    async def test_a_held_lock_is_refused_with_what_there_is_to_watch(self, scene: Scene) -> None:
        mine = await self._take(scene, "me", ttl=7_000)
        theirs = await self._take(scene, "you")
        assert theirs == Lock(False, mine.fence, mine.beat, 7_000)

    async def test_a_repeat_by_the_holder_is_granted_with_the_same_fence(self, scene: Scene) -> None:
        first = await self._take(scene, "me")
        assert await self._take(scene, "me") == first

    async def test_locks_of_different_names_know_nothing_of_each_other(self, scene: Scene) -> None:
        await self._take(scene, "me")
        assert (await self._take(scene, "you", name="other")).granted

    async def test_a_renewal_moves_the_counter_and_nothing_else(self, scene: Scene) -> None:
        mine = await self._take(scene, "me")
        assert await self._renew(scene, "me", mine.fence)
        seen = await self._take(scene, "you")
        assert (seen.granted, seen.fence, seen.ttl) == (False, mine.fence, mine.ttl)
        assert seen.beat != mine.beat

    async def test_a_lock_that_stood_still_is_taken_over_under_a_higher_fence(self, scene: Scene) -> None:
        mine = await self._take(scene, "me")
        yours = await self._take(scene, "you", still=Still(mine.fence, mine.beat))
        assert yours.granted
        assert yours.fence > mine.fence
        assert not await self._renew(scene, "me", mine.fence)
        assert not await self._release(scene, "me", mine.fence)
        assert await self._renew(scene, "you", yours.fence)

    async def test_a_lock_that_was_renewed_since_is_not_taken_over(self, scene: Scene) -> None:
        mine = await self._take(scene, "me")
        await self._renew(scene, "me", mine.fence)
        assert not (await self._take(scene, "you", still=Still(mine.fence, mine.beat))).granted
        assert await self._renew(scene, "me", mine.fence)

    async def test_a_takeover_whose_answer_was_lost_is_granted_again(self, scene: Scene) -> None:
        mine = await self._take(scene, "me")
        still = Still(mine.fence, mine.beat)
        first = await self._take(scene, "you", still=still)
        assert await self._take(scene, "you", still=still) == first

    async def test_a_released_lock_is_free_and_its_next_fence_is_higher(self, scene: Scene) -> None:
        mine = await self._take(scene, "me")
        assert await self._release(scene, "me", mine.fence)
        assert not await self._release(scene, "me", mine.fence)
        assert not await self._renew(scene, "me", mine.fence)
        yours = await self._take(scene, "you")
        assert yours.granted
        assert yours.fence > mine.fence

    async def test_another_ones_lock_is_not_released(self, scene: Scene) -> None:
        mine = await self._take(scene, "me")
        assert not await self._release(scene, "you", mine.fence)
        assert not await self._release(scene, "me", mine.fence + 1)
        assert not (await self._take(scene, "you")).granted

    async def test_fences_grow_though_the_callers_clock_stands_still(self, scene: Scene) -> None:
        fences = []
        for number in range(5):
            lock = await self._take(scene, str(number))
            fences.append(lock.fence)
            await self._release(scene, str(number), lock.fence)
        assert fences == sorted(set(fences))

    async def test_a_lock_is_remembered_for_a_day_after_its_release(self, scene: Scene) -> None:
        mine = await self._take(scene, "me")
        await self._release(scene, "me", mine.fence)
        scene.step(DAY // 2)
        other = await self._take(scene, "you", name="other")
        await self._release(scene, "you", other.fence, name="other")
        scene.now -= DAY  # the caller's clock goes back: only what is remembered makes the next fence higher
        assert (await self._take(scene, "you")).fence > mine.fence

    async def test_of_many_that_ask_at_once_one_holds_it(self, scene: Scene, peer: Store) -> None:
        sides = (scene.store.get(Leases), peer.get(Leases))
        answers = await asyncio.gather(
            *(
                side.take(NAME, f"{place}-{number}", ttl=TTL, still=None, now=scene.now)
                for number in range(10)
                for place, side in enumerate(sides)
            )
        )
        assert [lock.granted for lock in answers].count(True) == 1
        assert len({(lock.fence, lock.beat) for lock in answers}) == 1

    async def test_of_many_that_saw_it_stand_still_one_takes_it(self, scene: Scene, peer: Store) -> None:
        mine = await self._take(scene, "me")
        still = Still(mine.fence, mine.beat)
        sides = (scene.store.get(Leases), peer.get(Leases))
        answers = await asyncio.gather(
            *(
                side.take(NAME, f"{place}-{number}", ttl=TTL, still=still, now=scene.now)
                for number in range(10)
                for place, side in enumerate(sides)
            )
        )
        assert [lock.granted for lock in answers].count(True) == 1
