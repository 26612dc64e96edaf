"""How long a claim may take between looking and writing, and who waits for that.

A claim reads the worker's row, the pause and the jobs in one trip, and writes the jobs in the next. MongoDB guards
documents one by one, so the row or the pause may change in between. Two rules make that harmless:

- the claim's write holds only before a moment, `claim_window` ms after the read, which the server compares with its own
  clock; past it nothing is written and the claim looks again;
- `pause` and `declare_dead` write their mark and then wait, by the same clock, until every claim that could have missed
  it has landed or lapsed. So no claim begins after `pause` returned, and a dead boot's late claims are among the jobs
  that recovery takes. Where no worker serves the queue, `pause` need not wait: a claim looks for its worker's row.

Both are judged by the clock of one server. It may jump: a claim could then outlive its window by the jump.

The window is written into the store's data when they are first made: every process on them goes by the same one.
"""

from __future__ import annotations

import asyncio

from .connection import MongoConnection

CLAIM_WINDOW = 500  # ms


async def outlast(connection: MongoConnection, marked_at: int) -> None:
    """Wait until no claim that missed the mark of `marked_at` (ms, the store's clock) can still be written.

    To be called once a majority has acknowledged the mark: until then claims are shown what was before it, however long
    that takes.
    """
    window = connection.claim_window
    left = marked_at + 2 * window - await connection.clock()
    # At most: a clock that was set back must not hold us for long.
    await asyncio.sleep(max(window, min(left, 2 * window)) / 1000)


def lapsed(connection: MongoConnection, marked_at: int, clock: int) -> bool:
    return clock >= marked_at + 2 * connection.claim_window
