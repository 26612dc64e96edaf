"""A job of some seconds, so that a fault meets a handler for sure, however slow the machine is."""

from __future__ import annotations

from callboard import Callboard
from faults.scene import Scene
from faults.workload import QUEUES

LASTING = "lasting"
MILLISECONDS = 4000
PATIENCE_SECONDS = 60.0


async def begin_lasting(scene: Scene, app: Callboard, id: str = LASTING) -> None:
    """Return when it runs."""
    await app.queue(QUEUES[0]).add("work", [MILLISECONDS, False], job_id=id)
    scene.occurrences |= {id}
    await scene.until(lambda: lasts(scene, at=float("inf"), id=id), "the lasting job runs", PATIENCE_SECONDS)


def lasts(scene: Scene, *, at: float, id: str = LASTING) -> bool:
    return any(entry.run.job == id for entry in scene.running(at=at))
