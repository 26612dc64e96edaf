"""When a worker that stops drops its row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from callboard import Callboard
from callboard.actors.worker import Worker
from callboard.metadata.contract import Claimed, Workers
from callboard.runtime.actor import Stage
from callboard.runtime.testing import running

WITHIN_SECONDS = 60.0


class Unheard:
    """Claims that no answer comes to."""

    def __init__(self, asked: asyncio.Event) -> None:
        self._asked = asked

    async def claim(self, *_: Any, **__: Any) -> Sequence[Claimed]:
        self._asked.set()
        await asyncio.Event().wait()
        return []


def _unanswered(asked: asyncio.Event) -> type[Worker]:
    class Unanswered(Worker):
        def __init__(self, stage: Stage) -> None:
            super().__init__(stage)
            unheard: Any = Unheard(asked)
            self._claims._jobs = unheard

    return Unanswered


@pytest.mark.parametrize("grace_seconds", [0.0, 60.0])
async def test_a_worker_whose_claim_was_given_up_leaves_its_row_to_run_out(grace_seconds: float) -> None:
    app = Callboard(broker="memory://", store="memory://")
    asked = asyncio.Event()

    @app.task(name="t")
    async def t() -> None: ...

    async with asyncio.timeout(WITHIN_SECONDS), app:
        async with running(app, actors=[_unanswered(asked)], grace_seconds=grace_seconds) as worker:
            await t.enqueue()
            await asked.wait()
            worker.stop()
            if grace_seconds:
                worker.stop()
        assert len(await app.connections.store.get(Workers).workers(["default"])) == 1
