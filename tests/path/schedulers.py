"""What the tests of the Scheduler share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from callboard.runtime.scheduler import Scheduler
from path.place import Place

SOON = 60.0


def wait_until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


def scheduler_at(place: Place, *, grace_seconds: float = 5, **options: Any) -> Scheduler:
    return Scheduler(
        stores={"default": place.store},
        broker=place.broker,
        namespace=place.namespace,
        grace_seconds=grace_seconds,
        **options,
    )
