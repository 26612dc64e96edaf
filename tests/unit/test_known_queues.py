"""The queues that an actor looks after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from callboard.runtime.clock import SystemClock
from callboard.runtime.known_queues import KnownQueues


class _Control:
    """Something happens while it answers."""

    def __init__(self, found: Sequence[str], meanwhile: Callable[[], None] = lambda: None) -> None:
        self.found = found
        self.meanwhile = meanwhile

    async def queues(self) -> Sequence[str]:
        self.meanwhile()
        return self.found


def _known(control: _Control) -> KnownQueues:
    stage: Any = SimpleNamespace(
        options=SimpleNamespace(queues=()), capability=lambda kind: control, clock=SystemClock()
    )
    return KnownQueues(stage, read_again_seconds=1000.0)


async def test_a_queue_that_is_made_while_the_store_answers_is_known() -> None:
    control = _Control(["old"])
    known = _known(control)
    control.meanwhile = lambda: known.add("new")
    assert await known.names() == ("old", "new")
    assert not known.stale
    known.read_again()
    control.found, control.meanwhile = ["old", "other"], lambda: None
    assert await known.names() == ("old", "other"), "what the store does not know by then is gone"


async def test_who_asks_for_another_look_while_the_store_answers_gets_one() -> None:
    control = _Control(["old"])
    known = _known(control)
    control.meanwhile = known.read_again
    await known.names()
    assert known.stale


async def test_a_look_that_failed_is_made_again() -> None:
    def fail() -> None:
        raise OSError("away")

    known = _known(_Control(["old"], fail))
    with pytest.raises(OSError, match="away"):
        await known.names()
    assert known.stale
