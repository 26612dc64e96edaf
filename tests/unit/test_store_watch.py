"""What is told of a store whose settings change while processes run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from callboard.metadata.contract import Check
from callboard.metadata.errors import StoreError, StoreUnavailable
from callboard.runtime.clock import SystemClock
from callboard.runtime.store_watch import StoreWatch

SLOW = Check("redis-durability", "a power cut can lose answered writes")
EVICTS = Check("redis-eviction", "maxmemory-policy is allkeys-lru", refuse=True)


class _Store:
    def __init__(self, *found: Check) -> None:
        self.found: Sequence[Check] | Exception = found
        self.asked = asyncio.Event()

    async def check(self) -> Sequence[Check]:
        self.asked.set()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class _Hasty(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def _watch(store: Any, *known: Check) -> StoreWatch:
    return StoreWatch(store, SystemClock(), known=known)


def _told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return told


async def test_what_comes_and_what_goes_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "callboard.store")
    store = _Store(SLOW)
    watch = _watch(store, SLOW)
    await watch.look()
    assert _told(caplog) == [], "it was told when the store was opened"
    store.found = (SLOW, EVICTS)
    await watch.look()
    await watch.look()
    assert _told(caplog) == [
        ("ERROR", "store: maxmemory-policy is allkeys-lru; a process that starts now refuses it"),
    ]
    store.found = (EVICTS,)
    await watch.look()
    assert _told(caplog) == [("INFO", "store: no longer so: a power cut can lose answered writes")]
    store.found = (SLOW,)
    await watch.look()
    assert _told(caplog) == [
        ("WARNING", "store: a power cut can lose answered writes"),
        ("INFO", "store: no longer so: maxmemory-policy is allkeys-lru"),
    ]


async def test_a_store_that_is_away_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "callboard.store")
    store = _Store()
    watch = _watch(store, SLOW)
    store.found = StoreUnavailable("redis://there", "it is away")
    await watch.look()
    assert _told(caplog) == []
    store.found = (SLOW,)
    await watch.look()
    assert _told(caplog) == []


@pytest.mark.parametrize("fault", [StoreError("no permission"), KeyError("a bug")])
async def test_a_look_that_fails_is_told_once_and_made_again(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = _Store()
    watch = _watch(store)
    store.found = fault
    await watch.look()
    await watch.look()
    assert len(_told(caplog)) == 1
    store.found = (EVICTS,)
    await watch.look()
    assert [level for level, _ in _told(caplog)] == ["ERROR"]


async def test_it_looks_by_itself_until_it_is_left() -> None:
    store = _Store()
    async with StoreWatch(store, _Hasty(), known=()):  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            await store.asked.wait()
    store.asked.clear()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not store.asked.is_set()
