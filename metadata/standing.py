"""Standing claims: how a store hands jobs over as they are recorded. See `contract.py` for the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct


class Handed(Struct, frozen=True):
    """A job that a standing claim has got, by its first dispatch: its first attempt, under this fence."""

    queue: str
    id: str
    fence: int
    payload: bytes


class Hearing(Protocol):
    """Handed jobs are told one by one, in order, each once or, where the way to the store is lost, never."""

    async def sync(self) -> None:
        """Return once all that was handed over before this call has been told, or cannot be told any more."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class StandingClaims(Protocol):
    """A worker with nothing to do leaves its claim with the store, which hands it a job as soon as that is recorded:
    no ticket and no `claim` has to travel first. A store may hand over what it likes of that; Callboard works without,
    and a store need not offer it.

    `Jobs.enqueue` hands a job over in the same step that records it, and as if its first ticket had been claimed at
    once: active at dispatch 1, owned by that boot, fence and attempts as by `claim`. Its answer has the state active,
    and nobody sends a ticket. A job that was handed and not told is like one whose claim's reply was lost: a claim by
    its ticket is answered MINE, and while nobody runs it, it is its worker who gives it back."""

    async def hear(
        self, owner: str, queues: Sequence[str], *, told: Callable[[Handed], None], deaf: Callable[[], None]
    ) -> Hearing:
        """Be told of what is handed to `owner` from now on; `told` must not block. `deaf`: called once when the way to
        the store is lost, after which nothing is told. StoreError: this store, or its user's rights, forbid it."""
        ...

    async def stand(self, queue: str, owner: str, *, jobs: int) -> bool:
        """`owner` may be handed so many jobs from now on, in place of what it stood for before; 0: none. False: its
        boot is dead or has no row in this queue, and nothing stands.

        Handed over is a job that was recorded alone in its call and could be claimed at once, while no job of its queue
        waits and the queue is not paused; to an owner that hears, is alive, and may be handed the most."""
        ...
