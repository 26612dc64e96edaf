"""`app.lock`: one holder at a time, fences that grow, and what becomes of who stood still."""

from __future__ import annotations

import asyncio

import pytest

from callboard import Callboard, ConfigurationError, LockLost, LockTimeout
from callboard.metadata.leases import Leases, Still
from callboard.runtime.locks import Lock

TTL = 0.5
LONG = 60.0


async def hold(app: Callboard, name: str, *, ttl: float = TTL) -> Still:
    """By somebody who is never heard of again."""
    lock = await app.connections.store.get(Leases).take(
        name, "somebody", ttl=round(ttl * 1000), still=None, now=app.clock.now()
    )
    assert lock.granted
    return Still(lock.fence, lock.beat)


async def test_one_at_a_time_holds_a_lock_and_each_has_a_higher_fence(app: Callboard) -> None:
    inside = 0
    fences: list[int] = []

    async def work() -> None:
        nonlocal inside
        async with app.lock("counter", ttl=LONG, timeout=LONG) as lock:
            inside += 1
            assert inside == 1
            fences.append(lock.fence)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(8)))
    assert fences == sorted(set(fences))


async def test_a_lock_is_kept_for_longer_than_its_ttl_while_its_holder_lives(app: Callboard) -> None:
    async with app.lock("long", ttl=2) as lock:
        with pytest.raises(LockTimeout, match="'long' is held by somebody else"):
            async with app.lock("long", ttl=2, timeout=3):
                raise AssertionError("two hold it")
        assert not lock.lost


async def test_a_holder_that_is_not_heard_of_loses_it_to_who_waits(app: Callboard) -> None:
    theirs = await hold(app, "left")
    asked = asyncio.get_running_loop().time()
    async with app.lock("left", ttl=LONG, timeout=LONG) as lock:
        assert asyncio.get_running_loop().time() - asked >= TTL
        assert lock.fence > theirs.fence


async def steal(app: Callboard, lock: Lock) -> int:
    """As one that has seen it stand still would, though its holder renews it all the time; the thief's fence."""
    leases, still = app.connections.store.get(Leases), None
    async with asyncio.timeout(LONG):
        while True:
            seen = await leases.take(lock.name, "thief", ttl=60_000, still=still, now=app.clock.now())
            if seen.granted:
                break
            still = Still(seen.fence, seen.beat)
        assert seen.fence > lock.fence
        while not lock.lost:
            await asyncio.sleep(0.02)
    return seen.fence


async def test_a_holder_that_lost_it_is_told_at_the_end_of_its_block(app: Callboard) -> None:
    async def lose() -> None:
        async with app.lock("taken", ttl=2) as lock:
            await steal(app, lock)

    with pytest.raises(LockLost, match=r"'taken' was lost while it was held under fence \d+"):
        await lose()


async def test_a_lock_that_was_lost_can_be_entered_again_and_is_held_then(app: Callboard) -> None:
    lock, leases, thief = app.lock("again", ttl=2, timeout=LONG), app.connections.store.get(Leases), 0
    with pytest.raises(LockLost):
        async with lock:
            thief = await steal(app, lock)
    assert await leases.release("again", "thief", fence=thief, now=app.clock.now())
    async with lock:
        assert not lock.lost


async def test_what_a_block_raises_is_raised_also_where_the_lock_was_lost(app: Callboard) -> None:
    async def lose_and_fail() -> None:
        async with app.lock("taken", ttl=2) as lock:
            await steal(app, lock)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await lose_and_fail()


async def test_who_waited_in_vain_leaves_nothing_behind(app: Callboard) -> None:
    await hold(app, "busy", ttl=LONG)
    with pytest.raises(TimeoutError):
        async with app.lock("busy", timeout=0.05):
            raise AssertionError("two hold it")
    waiting = asyncio.create_task(app.lock("busy").__aenter__())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    leases = app.connections.store.get(Leases)
    lock = await leases.take("busy", "somebody", ttl=60_000, still=None, now=app.clock.now())
    assert lock.granted
    assert await leases.release("busy", "somebody", fence=lock.fence, now=app.clock.now())
    async with app.lock("busy", timeout=LONG):
        pass


async def test_a_name_or_a_ttl_that_cannot_be_is_refused_with_its_value() -> None:
    app = Callboard(broker="memory://", store="memory://")
    with pytest.raises(ConfigurationError, match="not 'two words'"):
        app.lock("two words")
    with pytest.raises(ConfigurationError, match=r"ttl=0\.1 of lock 'x'"):
        app.lock("x", ttl=0.1)
