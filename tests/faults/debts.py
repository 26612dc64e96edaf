"""Work that one kind of actor alone can do: handed in while all of that kind are gone, it has to wait for them.

    debts = Debts(scene, app)
    debt = await debts.owe("delayed-scanner")
    await debts.assert_open(debt)       # well past its time, and nobody has done it
    ...                                 # the actor comes back
    await debts.settled(debt)

Each is a job in QUEUE, which the scene then expects to be completed; but retention's, which are dead letters beyond the
number that DEAD_LETTERS, among the settings of the scene, lets stay.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from itertools import count

from msgspec import Struct

from callboard import Callboard
from callboard.brokers.message import Message, Receipt
from callboard.metadata.contract import Jobs
from callboard.metadata.job import Job, Outbox, State
from callboard.runtime.options import CallOptions
from faults.occurrences import every_second
from faults.scene import LOOK_SECONDS, UP_SECONDS, Scene
from faults.workload import QUEUES

QUEUE = QUEUES[0]
LETTERS_KEPT = 5
DEAD_LETTERS = {"CALLBOARD_DEAD_LETTER_COUNT": str(LETTERS_KEPT)}
LATE_SECONDS = 0.6  # far more than an actor that lives takes at the settings of a fleet
DELAY_SECONDS = 0.3
PUBLISH_SECONDS = 10.0


class Debt(Struct, frozen=True):
    """`due`: ms since the Unix epoch at which whoever lives would do it. `job`: "" for dead letters."""

    kind: str
    job: str
    due: int


class Debts:
    """`app`: an open one of the scene's namespace."""

    def __init__(self, scene: Scene, app: Callboard) -> None:
        self._scene = scene
        self._app = app
        self._numbers = count()

    async def owe(self, kind: str) -> Debt:
        name = f"debt-{next(self._numbers)}"
        now = self._app.clock.now()
        if kind == "retention":
            await self._publish(self._scene.names.dead, times=2 * LETTERS_KEPT)
            return Debt(kind, "", now)
        due = now
        if kind == "delayed-scanner":
            await self._app.queue(QUEUE).add("work", [0, False], job_id=name, delay=DELAY_SECONDS)
            due = now + round(DELAY_SECONDS * 1000)
        elif kind == "repeatable-scheduler":
            (name,) = await every_second(
                self._app.queue(QUEUE), name, start=datetime.now(UTC).replace(microsecond=0), times=1
            )
        elif kind == "stalled-recovery":
            both = (name, f"{name}-too")  # one alone would be handed over to an idle worker
            unsent = [self._app.new_job("work", [0, False], {}, CallOptions(job_id=id, queue=QUEUE)) for id in both]
            await self._app.connections.store.get(Jobs).enqueue(unsent, now=now, grace=0)
            self._scene.occurrences |= set(both)
        elif kind == "intake":
            await self._publish(self._scene.names.submit, {"task": "work", "args": [0, False], "id": name})
        else:
            raise ValueError(f"no work is known that waits for {kind!r} alone")
        self._scene.occurrences |= {name}
        return Debt(kind, name, due)

    async def assert_open(self, debt: Debt) -> None:
        """Wait until it is late; it must not be done then."""
        while self._app.clock.now() < debt.due + LATE_SECONDS * 1000:
            await asyncio.sleep(LOOK_SECONDS)
        assert await self._is_open(debt), f"{debt} was paid while every {debt.kind} was gone"

    async def settled(self, debt: Debt) -> None:
        async with asyncio.timeout(UP_SECONDS):
            while not await self._is_settled(debt):
                await asyncio.sleep(LOOK_SECONDS)

    async def _is_open(self, debt: Debt) -> bool:
        if debt.kind == "retention":
            return await self._letters() > LETTERS_KEPT
        job = await self._record(debt)
        match debt.kind:
            case "delayed-scanner":
                return job is not None and job.state is State.DELAYED
            case "stalled-recovery":
                return job is not None and job.state is State.WAITING and job.outbox is Outbox.DUE
            case _:
                return job is None

    async def _is_settled(self, debt: Debt) -> bool:
        if debt.kind == "retention":
            return await self._letters() <= LETTERS_KEPT
        job = await self._record(debt)
        return job is not None and job.state.final

    async def _record(self, debt: Debt) -> Job | None:
        (job,) = await self._scene.find(QUEUE, [debt.job])
        return job

    async def _letters(self) -> int:
        depth = await self._app.connections.broker.depth(self._scene.names.dead)
        assert depth is not None
        return depth.ready

    async def _publish(self, exchange: str, content: object = None, *, times: int = 1) -> None:
        message = Message(exchange=exchange, routing_key=QUEUE, body=json.dumps(content).encode())
        receipts = await self._app.connections.broker.publish([message] * times, timeout=PUBLISH_SECONDS)
        assert set(receipts) == {Receipt.CONFIRMED}, receipts
