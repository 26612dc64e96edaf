"""Workers in memory: rows, declared deaths, and the recovery of what a dead boot held."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ..contract import Heartbeat, Ready, Stalled, WorkerRow
from ..job import Keep, State
from .queue import DEAD_FOR, Row
from .state import Queues

FORGOTTEN = 8  # old declared deaths dropped with each new one


class MemoryWorkers:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def heartbeat(self, boot: str, queues: Sequence[str], *, info: bytes, now: int) -> Heartbeat:
        alive = True
        cancels: list[tuple[str, str]] = []
        paused: list[str] = []
        for name in queues:
            data = self._queues[name]
            if data.paused:
                paused.append(name)
            if boot in data.dead:
                alive = False
                continue
            row = data.rows.get(boot)
            data.rows[boot] = Row(row.beat + 1 if row else 1, info)
            cancels.extend((name, id) for id in data.asked.get(boot, ()))
        return Heartbeat(alive, cancels, paused)

    async def leave(self, boot: str, queues: Sequence[str]) -> None:
        for name in queues:
            data = self._queues[name]
            data.standing.pop(boot, None)
            if not data.holds(boot):
                data.rows.pop(boot, None)

    async def workers(self, queues: Sequence[str]) -> Sequence[WorkerRow]:
        return [
            WorkerRow(name, boot, row.beat, row.info, self._queues[name].holds(boot))
            for name in queues
            for boot, row in self._queues[name].rows.items()
        ]

    async def declare_dead(self, queue: str, boot: str, *, beat: int, now: int) -> bool:
        data = self._queues[queue]
        if boot in data.dead:
            return True
        row = data.rows.get(boot)
        if row is None or row.beat != beat:
            return False
        data.dead.add(boot, now)
        data.standing.pop(boot, None)
        for old in data.dead.below(now - DEAD_FOR, FORGOTTEN):
            if old not in data.rows:
                data.dead.discard(old)
        return True

    async def take_stalled(
        self,
        queue: str,
        boot: str,
        *,
        now: int,
        grace: int,
        max_stalled: int,
        error: bytes,
        history: bytes,
        keep: Keep,
        limit: int,
    ) -> Stalled:
        data = self._queues[queue]
        ready: list[Ready] = []
        failed: list[str] = []
        if boot not in data.dead:
            return Stalled(ready, failed, False)
        for id in list(islice(data.active.get(boot, ()), limit)):
            record = data.records[id]
            record.remember(history)
            if record.cancel_requested:
                data.end(record, State.CANCELLED, now=now, keep=keep)
            elif record.stalled >= max_stalled:
                record.error = error
                data.end(record, State.FAILED, now=now, keep=keep)
                failed.append(id)
            else:
                record.stalled += 1
                data.wait(record, dispatch=record.dispatch + 1, due=now + grace, now=now)
                ready.append(record.ready())
        more = data.holds(boot) > 0
        if not more:
            data.rows.pop(boot, None)
        return Stalled(ready, failed, more)
