"""An app's actors in the test's own event loop, and a signal for the end of their work, in place of sleeps.

app = Callboard(broker="memory://", store="memory://")

async with running(app):
    job = await send_email.enqueue("a@b.c")
    assert await job.result(timeout=5) == "sent"
    await settled(app, "emails")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

from ..actor import Actor, Options
from ..app import Callboard
from ..deployment import Deployment
from ..registry import find_actor

LOOK_AGAIN_SECONDS = 0.02

DEFAULT_ACTORS = ("worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention")


@asynccontextmanager
async def running(
    app: Callboard,
    *,
    actors: Sequence[str | type[Actor]] = DEFAULT_ACTORS,
    queues: Sequence[str] = (),
    weights: Sequence[int] | None = None,
    concurrency: int = 10,
    executor_processes: int = 2,
    grace_seconds: float = 5.0,
    seed: int = 1,
) -> AsyncIterator[Deployment]:
    """Run `actors` (classes, or names of entry points) until the block ends, then stop them in order; opens and closes
    the app.

    The other parameters are those of a deployment; `queues` empty: those of the app's tasks. Several blocks may run on
    one app, each then is like a process of its own. Raises at the end of the block what ended the actors, if something
    did: a supervisor that gave up, or what an actor raised while it was being stopped.
    """
    deployment = Deployment(
        app,
        [find_actor(actor) if isinstance(actor, str) else actor for actor in actors],
        Options(
            queues=tuple(queues),
            weights=None if weights is None else tuple(weights),
            concurrency=concurrency,
            executor_processes=executor_processes,
            grace_seconds=grace_seconds,
        ),
        random=Random(seed),
    )
    ending = asyncio.create_task(deployment.run(), name="callboard:running")
    started = asyncio.create_task(deployment.started.wait())
    try:
        await asyncio.wait([ending, started], return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            yield deployment
    finally:
        started.cancel()
        deployment.stop()
        await ending


async def settled(app: Callboard, *queues: str, timeout: float = 30.0) -> None:
    """Wait until no job of these queues waits, is delayed or runs. TimeoutError after `timeout` seconds, naming what is
    left."""
    left = {}
    try:
        async with asyncio.timeout(timeout):
            for name in queues:
                while True:
                    counts = await app.queue(name).queue_counts()
                    left = {"waiting": counts.waiting, "delayed": counts.delayed, "active": counts.active}
                    if not any(left.values()):
                        break
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"queue {name!r} is not settled after {timeout:g} s: {left}") from None
