"""For each operation of the contract: what was there before, and the call that is cut and repeated.

A new operation begins here too: `test_every_operation_has_a_case` fails until it has one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from ...metadata.contract import (
    CAPABILITIES,
    Deduplicating,
    Delay,
    Delays,
    Ending,
    Outcome,
    Retention,
    Sent,
    Ticket,
)
from ...metadata.ends import Ends
from ...metadata.job import Deduplication, Keep, NewJob, State
from ...metadata.leases import Leases, Lock
from ...metadata.schedule import Firing, Resumption
from ...metadata.schedules import Schedules
from ...metadata.standing import StandingClaims
from .store_fault_ground import IDS, KEPT, LATER, Ground
from .store_scene import ADOPTION_WINDOW, BOOT, GRACE, LAG, OTHER

Step = Callable[[Ground], Awaitable[object]]


class Case(Struct, frozen=True, kw_only=True):
    """`takes`: the answer holds rows, of which a repeat holds those that are left. `scans`: it may have any number of
    exchanges with the server, and only the first few are cut."""

    name: str
    before: Sequence[Step] = ()
    call: Step
    takes: bool = False
    scans: bool = False


def operations() -> dict[str, type]:
    """`Capability.operation` of everything that a store can be asked, and the capability."""
    return {
        f"{capability.__name__}.{name}": capability
        for capability in CAPABILITIES
        for name, member in vars(capability).items()
        if callable(member) and not name.startswith("_")
    }


def _unique(ground: Ground, id: str, *, run_at: int | None = None, **mode: Any) -> NewJob:
    return ground.new(id, run_at=run_at, deduplication=Deduplication(id="key", **mode))


def _firing(ground: Ground, id: str) -> Firing:
    jobs = tuple(ground.new(f"{id}@{n}") for n in range(2))
    return Firing(id=id, due=ground.now, revision=1, next_run=ground.now + LATER, state=b"fired", by="me", jobs=jobs)


def _enqueues() -> list[Case]:
    delayed = {"extend": True, "replace": True, "ttl": 2 * LATER}

    async def retrying(ground: Ground) -> None:
        """The holder's ticket was sent, and it waits for its next attempt."""
        await ground.beat()
        await ground.enqueue(_unique(ground, "a", **delayed))
        await ground.claim(Ticket("a", 1))
        retry = Outcome(id="a", dispatch=1, owner=BOOT, ending=Ending.RETRY, run_at=ground.now + LATER)
        await ground.jobs.finish(ground.queue, [retry], now=ground.now, grace=GRACE)

    async def forgotten(ground: Ground) -> None:
        """The newcomer's id is that of a job that is over, and still holds a deduplication id."""
        keep, lasting = Keep(age=LATER), Deduplication(id="other", ttl=100 * LATER)
        await ground.beat()
        await ground.enqueue(ground.new("b", deduplication=lasting), ago=3 * LATER)
        await ground.claim(Ticket("b", 1))
        done = Outcome(id="b", dispatch=1, owner=BOOT, ending=Ending.COMPLETED, keep=keep)
        await ground.jobs.finish(ground.queue, [done], now=ground.now - 2 * LATER, grace=GRACE)
        await ground.store.get(Retention).prune(
            [ground.queue], now=ground.now, adoption_window=ADOPTION_WINDOW, limit=9
        )

    return [
        Case(name="new, known and taken", before=[lambda g: g.enqueue(g.new("b"), g.new("c", priority=9))],
             call=lambda g: g.enqueue(*(g.new(id) for id in IDS))),
        Case(name="one id twice", call=lambda g: g.enqueue(g.new("a"), g.new("a"), g.new("b"))),
        Case(name="delayed", call=lambda g: g.enqueue(*(g.new(id, run_at=g.now + LATER) for id in IDS))),
        Case(name="a free deduplication id", call=lambda g: g.enqueue(_unique(g, "a", ttl=LATER), g.new("b"))),
        Case(name="a deduplication id that is held", before=[lambda g: g.enqueue(_unique(g, "a", ttl=LATER))],
             call=lambda g: g.enqueue(_unique(g, "b", ttl=2 * LATER, extend=True), g.new("c"))),
        Case(name="in the place of a delayed job",
             before=[lambda g: g.enqueue(_unique(g, "a", run_at=g.now + LATER, **delayed))],
             call=lambda g: g.enqueue(_unique(g, "b", run_at=g.now + LATER, **delayed), g.new("c"))),
        Case(name="in the place of a job whose ticket was sent", before=[retrying],
             call=lambda g: g.enqueue(_unique(g, "b", run_at=g.now + LATER, **delayed), g.new("c"))),
        Case(name="in the place of another, by an id that was used before", before=[forgotten, retrying],
             call=lambda g: g.enqueue(_unique(g, "b", run_at=g.now + LATER, **delayed), g.new("c"))),
        Case(name="where tombstones are left", before=[Ground.wait, lambda g: g.jobs.remove(g.queue, IDS, now=g.now)],
             call=lambda g: g.enqueue(*(g.new(id) for id in IDS))),
    ]  # fmt: skip


def _claims() -> list[Case]:
    async def expiring(ground: Ground) -> object:
        return await ground.enqueue(ground.new("a", expires_at=ground.now - 1), ground.new("b"))

    return [
        Case(name="jobs that wait", before=[Ground.beat, Ground.wait], call=Ground.claim),
        Case(name="jobs that were sent", before=[Ground.beat, Ground.send], call=Ground.claim),
        Case(name="jobs that the store does not know", before=[Ground.beat, Ground.wait],
             call=lambda g: g.claim(Ticket("a", 1), Ticket("d", 2, g.new("d")), Ticket("e", 1))),
        Case(name="an expired one", before=[Ground.beat, expiring],
             call=lambda g: g.claim(Ticket("a", 1), Ticket("b", 1))),
        # Paused before there is a worker whose claims under way would be waited for.
        Case(name="in a queue that is paused", before=[Ground.wait, lambda g: g.control.pause(g.queue), Ground.beat],
             call=Ground.claim),
        Case(name="final ones", before=[Ground.end], call=lambda g: g.claim(Ticket("a", 1), Ticket("b", 2))),
    ]  # fmt: skip


def _finishes() -> list[Case]:
    return [
        Case(name="for good", before=[Ground.start],
             call=lambda g: g.finish(Ending.COMPLETED, Ending.FAILED, Ending.CANCELLED)),
        Case(name="alike", before=[Ground.start], call=lambda g: g.finish(*[Ending.COMPLETED] * 3)),
        Case(name="one of which was ended before",
             before=[Ground.start, lambda g: g.jobs.finish(g.queue, [Outcome(id="b", dispatch=1, owner=BOOT,
                                                           ending=Ending.FAILED)], now=g.now, grace=GRACE)],
             call=lambda g: g.finish(*[Ending.COMPLETED] * 3)),
        Case(name="for now", before=[Ground.start],
             call=lambda g: g.finish(Ending.RETRY, Ending.RELEASE, Ending.PARK, run_at=g.now + LATER)),
        Case(name="at once again", before=[Ground.start],
             call=lambda g: g.finish(Ending.RETRY, Ending.COMPLETED, Ending.RELEASE)),
        Case(name="of a job that holds a deduplication id",
             before=[Ground.beat, lambda g: g.enqueue(_unique(g, "a"), g.new("b"), g.new("c")), Ground.claim],
             call=lambda g: g.finish(*[Ending.COMPLETED] * 3)),
    ]  # fmt: skip


def _jobs() -> dict[str, list[Case]]:
    async def mixed(ground: Ground) -> None:
        await ground.beat()
        await ground.wait()
        await ground.claim(Ticket("a", 1))
        await ground.enqueue(ground.new("d", run_at=ground.now + LATER))

    every = (*IDS, "d", "nobody")
    return {
        "Jobs.enqueue": _enqueues(),
        "Jobs.published": [Case(name="", before=[Ground.wait], call=lambda g: g.jobs.published(
            [Sent(g.queue, id, 1) for id in IDS], now=g.now))],
        "Jobs.claim": _claims(),
        "Jobs.finish": _finishes(),
        "Jobs.progress": [Case(name="", before=[Ground.start], call=lambda g: g.jobs.progress(
            g.queue, "a", dispatch=1, owner=BOOT, value=b"half"))],
        "Jobs.cancel": [Case(name="", before=[mixed], call=lambda g: g.jobs.cancel(
            g.queue, every, now=g.now, keep=KEPT))],
        "Jobs.retry": [Case(name="", before=[Ground.end], call=lambda g: g.jobs.retry(
            g.queue, every, now=g.now, grace=GRACE))],
        "Jobs.remove": [
            Case(name="", before=[mixed], call=lambda g: g.jobs.remove(g.queue, every, now=g.now)),
            Case(name="final ones", before=[Ground.end], call=lambda g: g.jobs.remove(g.queue, every, now=g.now)),
        ],
        "Jobs.take_unpublished": [Case(name="", before=[lambda g: g.wait(ago=2 * GRACE)], takes=True,
            call=lambda g: g.jobs.take_unpublished([g.queue], now=g.now, grace=GRACE, limit=9))],
        "Jobs.take_overtaken": [Case(name="", before=[lambda g: g.send(ago=2 * LAG)], takes=True,
            call=lambda g: g.jobs.take_overtaken(
                [g.queue], now=g.now, grace=GRACE, lag=LAG, sent_before=g.now - LAG, limit=9))],
    }  # fmt: skip


def _delays() -> dict[str, list[Case]]:
    async def delayed(ground: Ground) -> None:
        jobs = [ground.new(id, run_at=ground.now - 1) for id in IDS]
        await ground.enqueue(*jobs, ago=LATER)
        await ground.enqueue(ground.new("d"))

    some = [Delay("a", None), Delay("d", None), Delay("nobody", None)]
    return {
        "Delays.take_due": [Case(name="", before=[delayed], takes=True, call=lambda g: g.store.get(Delays).take_due(
            [g.queue], now=g.now, grace=GRACE, limit=9))],
        "Delays.reschedule": [Case(name="", before=[delayed], call=lambda g: g.store.get(Delays).reschedule(
            g.queue, [*some, Delay("b", g.now + LATER)], now=g.now, grace=GRACE))],
        "Delays.remove": [Case(name="", before=[delayed], call=lambda g: g.store.get(Delays).remove(
            g.queue, [*IDS, "d", "nobody"], now=g.now))],
    }  # fmt: skip


def _workers() -> dict[str, list[Case]]:
    async def dead(ground: Ground) -> None:
        await ground.start()
        await ground.jobs.cancel(ground.queue, ["b"], now=ground.now, keep=KEPT)
        await ground.declare_dead()

    def take(ground: Ground, max_stalled: int, limit: int = 9) -> Awaitable[object]:
        return ground.workers.take_stalled(
            ground.queue, BOOT, now=ground.now, grace=GRACE, max_stalled=max_stalled, error=b"lost",
            history=b"stalled", keep=KEPT, limit=limit,
        )  # fmt: skip

    async def asked(ground: Ground) -> None:
        await ground.start()
        await ground.jobs.cancel(ground.queue, ["a"], now=ground.now, keep=KEPT)

    return {
        "Workers.heartbeat": [
            Case(name="the first", call=Ground.beat),
            Case(name="of a worker with jobs to cancel", before=[asked], call=Ground.beat),
            Case(name="of a dead one", before=[dead], call=Ground.beat),
        ],
        "Workers.leave": [
            Case(name="", before=[Ground.beat, lambda g: g.beat(OTHER)],
                 call=lambda g: g.workers.leave(BOOT, [g.queue])),
            Case(name="with jobs", before=[Ground.start], call=lambda g: g.workers.leave(BOOT, [g.queue])),
        ],
        "Workers.workers": [Case(name="", before=[Ground.start], call=lambda g: g.workers.workers([g.queue]))],
        "Workers.declare_dead": [Case(name="", before=[Ground.start], call=Ground.declare_dead)],
        "Workers.take_stalled": [
            Case(name="", before=[dead], call=lambda g: take(g, 1), takes=True),
            Case(name="too often", before=[dead], call=lambda g: take(g, 0), takes=True),
            Case(name="some", before=[dead], call=lambda g: take(g, 1, limit=3), takes=True),
        ],
    }  # fmt: skip


def _control() -> dict[str, list[Case]]:
    async def unique(ground: Ground) -> object:
        return await ground.enqueue(_unique(ground, "a", ttl=2 * LATER))

    async def paused(ground: Ground) -> None:
        await ground.control.register([ground.queue])
        await ground.control.pause(ground.queue)

    async def aged(ground: Ground) -> None:
        await ground.end(ago=2 * LATER)
        await ground.enqueue(ground.new("d"))

    async def pruned(ground: Ground) -> None:
        await aged(ground)
        await ground.store.get(Retention).prune(
            [ground.queue], now=ground.now, adoption_window=ADOPTION_WINDOW, limit=9
        )

    def prune(ground: Ground, window: int) -> Awaitable[object]:
        return ground.store.get(Retention).prune([ground.queue], now=ground.now, adoption_window=window, limit=9)

    return {
        "Deduplicating.holder": [Case(name="", before=[unique], call=lambda g: g.store.get(Deduplicating).holder(
            g.queue, "key", now=g.now))],
        "Deduplicating.release": [Case(name="", before=[unique], call=lambda g: g.store.get(Deduplicating).release(
            g.queue, "key"))],
        "QueueControl.register": [Case(name="", call=lambda g: g.control.register([g.queue]))],
        "QueueControl.queues": [Case(name="", before=[paused], call=_knows)],
        "QueueControl.pause": [Case(name="", before=[Ground.wait], call=lambda g: g.control.pause(g.queue))],
        "QueueControl.resume": [Case(name="", before=[paused], call=lambda g: g.control.resume(g.queue))],
        "QueueControl.paused": [Case(name="", before=[paused], call=lambda g: g.control.paused([g.queue]))],
        "QueueControl.clear": [Case(name="", before=[Ground.send], takes=True, call=lambda g: g.control.clear(
            g.queue, State.WAITING, before=g.now + 1, limit=9, now=g.now))],
        "QueueControl.forget": [
            Case(name="", before=[paused], call=lambda g: g.control.forget(g.queue)),
            Case(name="that holds jobs", before=[Ground.wait], call=lambda g: g.control.forget(g.queue)),
        ],
        "Inspection.get": [Case(name="", before=[Ground.wait], call=lambda g: g.inspection.get(g.queue, IDS))],
        "Inspection.counts": [Case(name="", before=[Ground.end], call=lambda g: g.inspection.counts([g.queue]))],
        "Inspection.page": [Case(name="", before=[Ground.wait], call=lambda g: g.inspection.page(
            g.queue, State.WAITING, offset=0, limit=2, newest_first=True))],
        "Inspection.progress": [Case(name="", before=[Ground.start], call=lambda g: g.inspection.progress(
            g.queue, "a"))],
        "Inspection.audit": [Case(name="", scans=True, before=[Ground.end], call=lambda g: g.inspection.audit(
            g.queue))],
        "Retention.prune": [
            Case(name="by age", before=[aged], call=lambda g: prune(g, ADOPTION_WINDOW), takes=True),
            Case(name="by count", before=[Ground.end], call=lambda g: prune(g, ADOPTION_WINDOW), takes=True),
            Case(name="tombstones", before=[pruned], call=lambda g: prune(g, -1), takes=True),
        ],
    }  # fmt: skip


async def _knows(ground: Ground) -> bool:
    return ground.queue in await ground.control.queues()


def _schedules() -> dict[str, list[Case]]:
    def both(ground: Ground) -> Awaitable[object]:
        return ground.schedule("x", "y")

    async def paused(ground: Ground) -> None:
        await both(ground)
        await ground.store.get(Schedules).pause(ground.queue, ["x"], now=ground.now)

    def resume(ground: Ground) -> Awaitable[object]:
        again = Resumption(id="x", revision=2, next_run=ground.now + LATER, state=b"resumed")
        return ground.store.get(Schedules).resume(ground.queue, [again], now=ground.now)

    def fire(ground: Ground) -> Awaitable[object]:
        firings = [_firing(ground, id) for id in ("x", "y", "nobody")]
        return ground.store.get(Schedules).fire(ground.queue, firings, now=ground.now, grace=GRACE)

    return {
        "Schedules.upsert": [
            Case(name="new", call=both),
            Case(name="changed", before=[both], call=lambda g: g.store.get(Schedules).upsert(
                [g.schedule_of("x", trigger=b"daily", next_run=g.now + 1), g.schedule_of("z")], now=g.now)),
        ],
        "Schedules.get": [Case(name="", before=[both], call=lambda g: g.store.get(Schedules).get(g.queue, ["x"]))],
        "Schedules.page": [Case(name="", before=[both], call=lambda g: g.store.get(Schedules).page(
            g.queue, offset=0, limit=9))],
        "Schedules.count": [Case(name="", before=[both], call=lambda g: g.store.get(Schedules).count([g.queue]))],
        "Schedules.due": [Case(name="", before=[both], call=lambda g: g.store.get(Schedules).due(
            [g.queue], now=g.now, limit=9))],
        "Schedules.fire": [Case(name="", before=[both], call=fire)],
        "Schedules.pause": [Case(name="", before=[both], call=lambda g: g.store.get(Schedules).pause(
            g.queue, ["x", "nobody"], now=g.now))],
        "Schedules.resume": [Case(name="", before=[paused], call=resume)],
        "Schedules.remove": [Case(name="", before=[both, fire], call=lambda g: g.store.get(Schedules).remove(
            g.queue, ["x", "nobody"]))],
    }  # fmt: skip


def _standing() -> dict[str, list[Case]]:
    async def hear(ground: Ground) -> None:
        claims = ground.store.get(StandingClaims)
        hearing = await claims.hear(BOOT, [ground.queue], told=lambda handed: None, deaf=lambda: None)
        await hearing.close()

    async def stand(ground: Ground, jobs: int = 3) -> bool:
        return await ground.store.get(StandingClaims).stand(ground.queue, BOOT, jobs=jobs)

    async def hear_ends(ground: Ground) -> None:
        hearing = await ground.store.get(Ends).hear(told=lambda *end: None, deaf=lambda: None)
        try:
            await hearing.add(ground.queue)
        finally:
            await hearing.close()

    return {
        "Ends.hear": [Case(name="", call=hear_ends)],
        "StandingClaims.hear": [Case(name="", before=[Ground.beat], call=hear)],
        "StandingClaims.stand": [
            Case(name="for some", before=[Ground.beat], call=stand),
            Case(name="for none", before=[Ground.beat, stand], call=lambda g: stand(g, 0)),
        ],
    }


def _leases() -> dict[str, list[Case]]:
    async def take(ground: Ground, *, holder: str = BOOT) -> Lock:
        return await ground.store.get(Leases).take(ground.queue, holder, ttl=LATER, still=None, now=ground.now)

    async def granted(ground: Ground) -> bool:
        return (await take(ground)).granted

    async def refused(ground: Ground) -> bool:
        return (await take(ground, holder=OTHER)).granted

    async def renew(ground: Ground) -> bool:
        return await ground.store.get(Leases).renew(ground.queue, BOOT, fence=(await take(ground)).fence)

    async def release(ground: Ground) -> bool:
        held = await take(ground, holder=OTHER)  # it is not free: this tells the fence
        return await ground.store.get(Leases).release(ground.queue, BOOT, fence=held.fence, now=ground.now)

    return {
        "Leases.take": [Case(name="free", call=granted), Case(name="held", before=[granted], call=refused)],
        "Leases.renew": [Case(name="", before=[granted], call=renew)],
        "Leases.release": [Case(name="", before=[granted], call=release)],
    }


CASES: dict[str, list[Case]] = {
    **_jobs(),
    **_delays(),
    **_workers(),
    **_standing(),
    **_control(),
    **_schedules(),
    **_leases(),
}
