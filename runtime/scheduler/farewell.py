"""Tasks that run when their scheduler shuts down: `add_task(tidy, "shutdown")`.

They belong to the process and are stored nowhere. `shutdown` makes a job of each, and waits until all have ended before
anything here stops, whatever its `wait` says, within `grace_seconds`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from msgspec import Struct

from ..errors import InvalidJob


class ShutdownTrigger(Struct, frozen=True):
    alias: ClassVar[str] = "shutdown"
    description: ClassVar[str] = "when the scheduler shuts down"


SHUTDOWN: Final = ShutdownTrigger()


def refuse_retrigger(id: str | None) -> InvalidJob:
    return InvalidJob(f"task {id!r:.100} runs when the scheduler shuts down: delete it, and add another in its place")
