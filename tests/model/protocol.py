"""The job protocol as a machine small enough to try every order of events: one job, a producer, a relay, two workers.

    producer  --enqueue-->  record  <--recover, reconcile--  stalled recovery, which may misjudge a lease at any time
        |                   ^    ^
     publish            claim    published
        v            finish |    |
     tickets  --deliver--> workers  relay, which publishes what the outbox holds

Each function below is one process and yields every step that it could take next. Between any two steps each process may
crash, a connection may be cut (tickets not yet acked come back while the handler runs on), a ticket may be duplicated,
the reply to a claim may be lost; all these draw on one budget of faults. That a lease is judged lost (`recover`) costs
nothing: the old owner is then a zombie. `Rules` names the clauses of the protocol, so that each can be left out: a
check that finds nothing must be seen to find something.

Left out: limits, flows, bundles, several jobs, time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

ABSENT, WAITING, ACTIVE, COMPLETED, FAILED, TOMBSTONE = (
    "absent",
    "waiting",
    "active",
    "completed",
    "failed",
    "tombstone",
)
FINAL = frozenset({COMPLETED, FAILED, TOMBSTONE})
NOBODY, DEAD_BOOT = 0, 9
DONE, CRASHED = 3, 9  # of the producer
MAX_COPIES = 2  # of one dispatch's ticket: a third could do nothing that two cannot


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The protocol as designed, when nothing is said; each field leaves out one clause or adds one kind of disaster."""

    faults: int = 3
    max_stalled: int = 1
    order: Literal["store-first", "message-first"] = "store-first"
    yes_after: Literal["store", "broker", "both"] = "both"
    reconcile: bool = True  # tickets that are gone are noticed and sent again
    published_names_dispatch: bool = True
    finish_is_fenced: bool = True  # by (dispatch, owner)
    ack_after_claim: bool = True
    clear_outbox_after_publish: bool = True
    adopt_unknown: bool = True  # a ticket whose record is absent makes one
    remember_claims: bool = True  # a worker's own table of the dispatches it has claimed since its boot
    accept_newer: bool = True  # a ticket newer than the record proves that the store lost a write
    broker_forgets: bool = False  # every ticket, once
    store_forgets: bool = False  # its last write, once
    retention: Literal["none", "tombstone", "forget"] = "none"  # of a final record, once

    @property
    def dispatches(self) -> int:
        return self.max_stalled + 1


class Record(NamedTuple):
    state: str
    dispatch: int
    owner: int  # NOBODY, a worker's number (1, 2), or DEAD_BOOT
    outbox: int  # 1: not known to be sent


class World(NamedTuple):
    """All there is to know at one moment. Lists by dispatch begin at dispatch 1, lists by worker at worker 1."""

    record: Record
    forgotten: Record | None  # the record before its last write, where the store may fall back to it
    producer: int  # steps done, then DONE; or CRASHED
    relay: int  # the dispatch that it has published and not yet reported; 0: idle
    tickets: tuple[int, ...]  # copies in the broker, by dispatch
    unacked: tuple[int, ...]  # dispatch of the ticket each worker holds; negative: acked before its claim
    runs: tuple[int, ...]  # dispatch each worker runs; negative: the handler has ended
    claims: tuple[int, ...]  # per worker, a bit for each dispatch claimed since its boot
    told: bool  # the caller of enqueue has had its yes
    finals: int  # finishes that were accepted, up to 2
    starts: tuple[int, ...]  # handlers started, by dispatch, up to 2
    faults: int  # left in the budget
    disaster: bool  # has happened


class Kind(IntEnum):
    """What may be assumed of a step: a job must get to its end by NORMAL ones alone."""

    NORMAL = 0
    FAULT = 1  # out of the budget
    DISASTER = 2  # one side loses its memory


class Step(NamedTuple):
    name: str
    kind: Kind
    after: World


def start(rules: Rules) -> World:
    none = (0,) * rules.dispatches
    return World(
        record=Record(ABSENT, 0, NOBODY, 0),
        forgotten=None,
        producer=0,
        relay=0,
        tickets=none,
        unacked=(0, 0),
        runs=(0, 0),
        claims=(0, 0),
        told=False,
        finals=0,
        starts=none,
        faults=rules.faults,
        disaster=False,
    )


def steps(world: World, rules: Rules) -> Iterator[Step]:
    """Every step that some process, or some fault, could take next."""
    for step in _all_steps(world, rules):
        if rules.store_forgets and step.kind != Kind.DISASTER and step.after.record != world.record:
            yield step._replace(after=step.after._replace(forgotten=world.record))
        else:
            yield step


def _all_steps(world: World, rules: Rules) -> Iterator[Step]:
    yield from producer(world, rules)
    yield from relay(world, rules)
    yield from recovery(world, rules)
    for worker in (0, 1):
        yield from deliveries(world, rules, worker)
        if world.unacked[worker] > 0:
            yield from claim(world, rules, worker)
        elif world.unacked[worker] < 0:
            yield claim_without_ticket(world, worker)
        yield from handler(world, rules, worker)
        yield from worker_faults(world, worker)
    yield from copies(world, rules)
    yield from disasters(world, rules)


def producer(world: World, rules: Rules) -> Iterator[Step]:
    record, sent = world.record, _add(world.tickets, 1)
    names = _producer_order(rules)
    if world.producer >= len(names):
        return
    name = names[world.producer]
    after = world._replace(producer=world.producer + 1 if world.producer + 1 < len(names) else DONE)
    if name == "enqueue":
        outbox = 1 if rules.order == "store-first" else 0
        fresh = Record(WAITING, 1, NOBODY, outbox) if record.state == ABSENT else record
        told = world.told or rules.order == "message-first" or rules.yes_after == "store"
        yield Step("enqueue", Kind.NORMAL, after._replace(record=fresh, told=told))
    elif name == "publish":
        told = world.told or rules.order == "store-first" or rules.yes_after == "broker"
        yield Step("publish", Kind.NORMAL, after._replace(tickets=sent, told=told))
    else:
        yield Step("published", Kind.NORMAL, after._replace(record=_published(world, 1, rules)))
    if world.faults:
        yield _fault(world, "producer crashes", world._replace(producer=CRASHED))


def _producer_order(rules: Rules) -> tuple[str, ...]:
    if rules.order == "message-first":
        return ("publish", "enqueue")
    if rules.clear_outbox_after_publish:
        return ("enqueue", "publish", "published")
    return ("enqueue", "published", "publish")


def _published(world: World, dispatch: int, rules: Rules) -> Record:
    """The record once its outbox entry is cleared, if it still waits at the dispatch that was published."""
    record = world.record
    if record.state == WAITING and (record.dispatch == dispatch or not rules.published_names_dispatch):
        return Record(WAITING, record.dispatch, NOBODY, 0)
    return record


def relay(world: World, rules: Rules) -> Iterator[Step]:
    record = world.record
    if world.relay:
        done = world._replace(relay=0, record=_published(world, world.relay, rules))
        yield Step("relay: published", Kind.NORMAL, done)
        if world.faults:
            yield _fault(world, "relay crashes", world._replace(relay=0))
    elif record.state == WAITING and record.outbox and world.tickets[record.dispatch - 1] < MAX_COPIES:
        sent = _add(world.tickets, record.dispatch)
        yield Step("relay: publish", Kind.NORMAL, world._replace(relay=record.dispatch, tickets=sent))


def recovery(world: World, rules: Rules) -> Iterator[Step]:
    """It may be wrong both times: the owner may live, the tickets may be on their way."""
    state, dispatch, _, outbox = world.record
    if state == ACTIVE:
        again = Record(WAITING, dispatch + 1, NOBODY, 1)
        record = again if dispatch <= rules.max_stalled else Record(FAILED, dispatch, NOBODY, 0)
        yield Step("recover", Kind.NORMAL, world._replace(record=record))
    if rules.reconcile and state == WAITING and not outbox and world.tickets[dispatch - 1] == 0:
        yield Step("reconcile", Kind.NORMAL, world._replace(record=Record(WAITING, dispatch, NOBODY, 1)))


def deliveries(world: World, rules: Rules, worker: int) -> Iterator[Step]:
    if world.unacked[worker]:
        return
    for dispatch in range(1, rules.dispatches + 1):
        if world.tickets[dispatch - 1]:
            taken = world._replace(
                tickets=_add(world.tickets, dispatch, -1), unacked=_set(world.unacked, worker, dispatch)
            )
            yield Step(f"deliver {dispatch} to {worker + 1}", Kind.NORMAL, taken)


def claim(world: World, rules: Rules, worker: int) -> Iterator[Step]:
    """What a worker does with the ticket it holds: claim, start what it had claimed before, or only ack."""
    record, dispatch, idle = world.record, world.unacked[worker], not world.runs[worker]
    acked = _set(world.unacked, worker, 0)
    claimed_before = bool(world.claims[worker] & (1 << dispatch))
    mine = record.state == ACTIVE and record.dispatch == dispatch and record.owner == worker + 1
    who = f"{worker + 1}: "
    if not rules.ack_after_claim:
        yield Step(who + "ack early", Kind.NORMAL, world._replace(unacked=_set(world.unacked, worker, -dispatch)))
    if _claimable(record, dispatch, rules):
        owned = world._replace(record=Record(ACTIVE, dispatch, worker + 1, 0))
        if idle:
            yield Step(who + f"claim {dispatch}", Kind.NORMAL, _run(owned, worker, dispatch))
        if world.faults:
            yield _fault(world, who + f"claim {dispatch}, reply lost", owned)
    elif mine and not (claimed_before and rules.remember_claims):
        if idle:
            yield Step(who + f"claim {dispatch} again: mine, run it", Kind.NORMAL, _run(world, worker, dispatch))
        elif claimed_before:
            twice = world._replace(unacked=acked, starts=_add(world.starts, dispatch))
            yield Step(who + f"claim {dispatch} again: mine, run a second copy", Kind.NORMAL, twice)
    else:
        yield Step(who + f"ack {dispatch}", Kind.NORMAL, world._replace(unacked=acked))


def _claimable(record: Record, dispatch: int, rules: Rules) -> bool:
    if record.state == WAITING:
        return dispatch == record.dispatch or (rules.accept_newer and dispatch > record.dispatch > 0)
    if record.state == ABSENT:
        return rules.adopt_unknown
    return rules.accept_newer and record.state == ACTIVE and dispatch > record.dispatch


def claim_without_ticket(world: World, worker: int) -> Step:
    """Only where the ack comes before the claim, which is wrong: nothing brings this ticket back."""
    record, dispatch = world.record, -world.unacked[worker]
    free = (record.state == WAITING and record.dispatch == dispatch) or record.state == ABSENT
    after = world._replace(unacked=_set(world.unacked, worker, 0))
    if not free or world.runs[worker]:
        return Step(f"{worker + 1}: drop {dispatch}", Kind.NORMAL, after)
    owned = after._replace(record=Record(ACTIVE, dispatch, worker + 1, 0))
    return Step(f"{worker + 1}: claim {dispatch}", Kind.NORMAL, _run(owned, worker, dispatch))


def _run(world: World, worker: int, dispatch: int) -> World:
    claims = _set(world.claims, worker, world.claims[worker] | (1 << dispatch))
    return world._replace(runs=_set(world.runs, worker, dispatch), claims=claims)


def handler(world: World, rules: Rules, worker: int) -> Iterator[Step]:
    dispatch = world.runs[worker]
    if dispatch > 0:
        ran = world._replace(runs=_set(world.runs, worker, -dispatch), starts=_add(world.starts, dispatch))
        yield Step(f"{worker + 1}: run {dispatch}", Kind.NORMAL, ran)
    elif dispatch < 0:
        accepted = _finish_accepted(world, rules, worker)
        record = world.record
        # A record that the store forgot, or that comes after its message, is made by its finish.
        final = Record(COMPLETED, -dispatch if record.state == ABSENT else record.dispatch, NOBODY, 0)
        finished = world._replace(
            runs=_set(world.runs, worker, 0),
            record=final if accepted else record,
            finals=min(world.finals + accepted, 2),
        )
        yield Step(f"{worker + 1}: finish {-dispatch}", Kind.NORMAL, finished)


def _finish_accepted(world: World, rules: Rules, worker: int) -> bool:
    record = world.record
    if not rules.finish_is_fenced:
        return record.state != ABSENT
    if record.state == ABSENT:
        return rules.retention == "none"
    return record.state == ACTIVE and record.dispatch == -world.runs[worker] and record.owner == worker + 1


def worker_faults(world: World, worker: int) -> Iterator[Step]:
    held = world.unacked[worker]
    if not world.faults or not (held or world.runs[worker]):
        return
    record = world.record
    back = _add(world.tickets, held) if held > 0 else world.tickets
    nothing = _set(world.unacked, worker, 0)
    dead = world._replace(
        unacked=nothing,
        runs=_set(world.runs, worker, 0),
        claims=_set(world.claims, worker, 0),
        tickets=back,
        record=record._replace(owner=DEAD_BOOT) if record.owner == worker + 1 else record,
    )
    yield _fault(world, f"{worker + 1} crashes", dead)
    if held > 0:
        yield _fault(world, f"{worker + 1} is cut off", world._replace(unacked=nothing, tickets=back))


def copies(world: World, rules: Rules) -> Iterator[Step]:
    if world.faults:
        for dispatch in range(1, rules.dispatches + 1):
            if world.tickets[dispatch - 1] == 1:
                yield _fault(world, f"copy of {dispatch}", world._replace(tickets=_add(world.tickets, dispatch)))


def disasters(world: World, rules: Rules) -> Iterator[Step]:
    if world.disaster:
        return
    after = world._replace(disaster=True)
    if rules.broker_forgets and any(world.tickets):
        nothing = (0,) * rules.dispatches
        yield Step("the broker forgets", Kind.DISASTER, after._replace(tickets=nothing))
    if rules.store_forgets and world.forgotten is not None:
        older = after._replace(record=world.forgotten, forgotten=None)
        yield Step("the store forgets", Kind.DISASTER, older)
    if rules.retention != "none" and world.record.state in (COMPLETED, FAILED):
        tombstone = Record(TOMBSTONE, world.record.dispatch, NOBODY, 0)
        record = tombstone if rules.retention == "tombstone" else Record(ABSENT, 0, NOBODY, 0)
        yield Step("retention", Kind.NORMAL, after._replace(record=record))


def _fault(world: World, name: str, after: World) -> Step:
    return Step(name, Kind.FAULT, after._replace(faults=world.faults - 1))


def _add(counts: tuple[int, ...], dispatch: int, change: int = 1) -> tuple[int, ...]:
    return _set(counts, dispatch - 1, min(counts[dispatch - 1] + change, MAX_COPIES))


def _set(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])
