"""A queue that is worked where it is made: `await Queue("maintenance", app, concurrency=4).run()`."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from .actor import Options
from .deployment import Deployment
from .registry import find_actor

if TYPE_CHECKING:
    from .app import Callboard

CONCURRENCY = 10
ACTORS = ("worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention")


class WorkingQueue:
    """The part of `Queue` that runs actors."""

    name: str
    app: Callboard
    concurrency: int

    async def run(self, *, grace_seconds: float = 25.0) -> None:
        """Run a worker and the other actors for this queue, until SIGTERM or SIGINT, or until this is cancelled; then
        running jobs have `grace_seconds`. As `callboard up`, for one queue and within a program of yours.

        Raises CapabilityMissing, GaveUp, and what connecting raises."""
        options = Options(queues=(self.name,), concurrency=self.concurrency, grace_seconds=grace_seconds)
        deployment = Deployment(self.app, [find_actor(kind) for kind in ACTORS], options)
        if threading.current_thread() is threading.main_thread():
            deployment.stop_on_signals()
        running = asyncio.create_task(deployment.run(), name=f"callboard:{self.name}")
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            deployment.stop()
            await running
            raise
