"""How a lost ticket is noticed (protocol T16; 2.9): watermarks, and a broker that was seen empty."""

from __future__ import annotations

from ...metadata.job import Outbox
from .store_scene import GRACE, LAG, Scene, StoreSuite


class OvertakenConformance(StoreSuite):
    async def test_a_claim_of_a_job_sent_much_later_shows_that_an_earlier_ticket_is_lost(self, scene: Scene) -> None:
        await self._sent_and_overtaken(scene, lag=LAG + 1)
        assert await scene.overtaken() == [("lost", 1)]

    async def test_a_claim_of_a_job_sent_a_lag_later_shows_nothing_yet(self, scene: Scene) -> None:
        await self._sent_and_overtaken(scene, lag=LAG)
        assert await scene.overtaken() == []

    async def _sent_and_overtaken(self, scene: Scene, *, lag: int, priority: int = 5) -> None:
        await scene.beat()
        await scene.add("lost")
        await scene.confirm("lost")
        scene.step(lag)
        await scene.add("later", priority=priority)
        await scene.confirm("later")
        await scene.claim("later")

    async def test_a_claim_of_another_priority_overtakes_nothing(self, scene: Scene) -> None:
        await self._sent_and_overtaken(scene, lag=10 * LAG, priority=1)
        assert await scene.overtaken() == []

    async def test_a_watermark_never_goes_back(self, scene: Scene) -> None:
        await scene.beat()
        await scene.enqueue(scene.new("early"), scene.new("lost"))
        await scene.confirm("early")
        await scene.confirm("lost")
        scene.step(LAG + 1)
        await scene.add("later")
        await scene.confirm("later")
        await scene.claim("later")
        await scene.claim("early")
        assert await scene.overtaken() == [("lost", 1)]

    async def test_a_claim_of_a_job_not_known_to_be_sent_overtakes_nothing(self, scene: Scene) -> None:
        await scene.beat()
        await scene.add("lost")
        await scene.confirm("lost")
        scene.step(10 * LAG)
        await scene.add("later")
        await scene.claim("later")
        assert await scene.overtaken() == []

    async def test_a_watermark_ahead_of_the_callers_clock_is_taken_for_its_now(self, scene: Scene) -> None:
        await self._sent_and_overtaken(scene, lag=10 * LAG)
        scene.step(-9 * LAG)
        assert await scene.overtaken() == []
        scene.step(1)
        assert await scene.overtaken() == [("lost", 1)]

    async def test_an_overtaken_job_is_due_again_a_grace_later_at_the_same_dispatch(self, scene: Scene) -> None:
        await self._sent_and_overtaken(scene, lag=LAG + 1)
        await scene.overtaken()
        assert (await scene.job("lost")).outbox is Outbox.DUE
        assert await scene.overtaken() == []
        assert await scene.unpublished() == []
        scene.step(GRACE)
        assert await scene.unpublished() == [("lost", 1)]

    async def test_an_overtaken_job_that_is_sent_again_is_sent_now(self, scene: Scene) -> None:
        await self._sent_and_overtaken(scene, lag=LAG + 1)
        await scene.overtaken()
        scene.step(10)
        await scene.confirm("lost")
        assert (await scene.job("lost")).sent_at == scene.now
        assert await scene.overtaken() == []

    async def test_a_job_sent_before_the_broker_was_seen_empty_is_lost(self, scene: Scene) -> None:
        await scene.add("job")
        await scene.confirm("job")
        assert await scene.overtaken(sent_before=scene.now) == []
        assert await scene.overtaken(sent_before=scene.now + 1) == [("job", 1)]

    async def test_overtaken_jobs_come_up_to_the_limit(self, scene: Scene) -> None:
        await scene.enqueue(*(scene.new(str(n), priority=1 + n % 3) for n in range(6)))
        for n in range(6):
            await scene.confirm(str(n))
        first = await scene.overtaken(sent_before=scene.now + 1, limit=4)
        rest = await scene.overtaken(sent_before=scene.now + 1, limit=4)
        assert len(first) == 4
        assert sorted(first + rest) == [(str(n), 1) for n in range(6)]
