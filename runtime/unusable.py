"""What a worker cannot use of what `callboard.jobs` brings: put aside for an operator, or back for another worker.

Put aside, on `callboard.dead`, is what is no bundle of ours, and tickets of jobs that are over or forgotten.

Put back is what is of a later wire version: a deploy may be under way. Most of it never comes here, since the jobs of
a version that keeps what wire.py promises are parked in the store. What cannot be is held for ten seconds, published
again as it is, to the end of its queue, confirmed, and acked: it makes its rounds among the workers without a hot loop,
and counts towards no delivery limit. A header says since when; after `unknown_task_grace` without anybody who can read
it, it is put aside. While it is held, it takes up one of the messages that this worker may hold.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from ..brokers.message import Delivery, Message, Receipt
from ..metadata.contract import Verdict
from .actor import Stage
from .backlog import Parcel, Pending
from .dead_letters import PUT_BACK_SINCE, DeadLetters, Letter
from .wire import Malformed, encode_body

HOLD_SECONDS = 10.0
PRIORITY = 5  # AMQP's; the message's own is not known

Spawn = Callable[[Coroutine[object, object, None]], object]


class Unusable:
    """Each call settles one part of a parcel, once its bytes are safe elsewhere. `spawn` runs what takes its time."""

    def __init__(self, stage: Stage, *, spawn: Spawn) -> None:
        self._stage = stage
        self._spawn = spawn
        self._dead = DeadLetters(stage.connections)
        self._held: set[Delivery] = set()

    def malformed(self, queue: str, parcel: Parcel, part: Malformed) -> None:
        if part.later:
            self._spawn(self._put_back(queue, parcel, part.reason))
        else:
            self._spawn(self._put_aside(queue, parcel, part.body, "malformed", part.reason))

    def refused(self, queue: str, pending: Pending, verdict: Verdict) -> None:
        """A ticket that the store refused: UNKNOWN or AHEAD."""
        ticket, parcel = pending.ticket, pending.parcel
        if ticket.later and verdict is Verdict.UNKNOWN:
            why = f"wire version {ticket.v} of job {ticket.id!r}, which the store does not know"
            self._spawn(self._put_back(queue, parcel, why))
            return
        reason = "unknown-old" if verdict is Verdict.UNKNOWN else "ahead-of-final"
        self._spawn(self._put_aside(queue, parcel, encode_body(ticket), reason, f"dispatch {ticket.dispatch}"))

    async def _put_aside(self, queue: str, parcel: Parcel, body: bytes, reason: str, detail: str) -> None:
        if await self._kept(queue, parcel.delivery, body, reason, detail):
            parcel.settle()

    async def _kept(self, queue: str, delivery: Delivery, body: bytes, reason: str, detail: str) -> bool:
        letter = Letter(queue=queue, body=body, size=len(body), reason=reason, detail=detail, delivery=delivery)
        return await self._dead.insist(letter, self._stage)

    async def _put_back(self, queue: str, parcel: Parcel, why: str) -> None:
        delivery = parcel.delivery
        if delivery in self._held:
            parcel.settle()  # the message goes back as a whole; those of its jobs that run are refused as copies
            return
        self._held.add(delivery)
        if await self._gone_back(queue, delivery, why):
            parcel.settle()
        self._held.discard(delivery)

    async def _gone_back(self, queue: str, delivery: Delivery, why: str) -> bool:
        """False: it is on its way to somebody again by itself."""
        stage = self._stage
        now, grace = stage.clock.now(), stage.settings.unknown_task_grace
        given = delivery.headers.get(PUT_BACK_SINCE)
        since = min(now, given) if isinstance(given, int) else now
        if now - since >= grace * 1000:
            why = f"{why}; nobody has come in {grace:g} s who can read it"
            return await self._kept(queue, delivery, delivery.body, "later-version", why)
        stage.log.warning("%s; a message of queue %s goes back to it in %g s", why, queue, HOLD_SECONDS)
        await stage.sleep(min(HOLD_SECONDS, max(grace, 0.1)))
        message = Message(
            exchange=stage.names.jobs,
            routing_key=queue,
            body=delivery.body,
            headers={PUT_BACK_SINCE: since},
            priority=PRIORITY,
        )
        failures = 0
        while not delivery.lost and not stage.stopping.is_set():
            (receipt,) = await stage.broker.publish([message], timeout=stage.settings.confirm_timeout)
            if receipt is Receipt.CONFIRMED:
                return True
            failures += 1
            await stage.sleep(stage.backoff(failures))
        return False
