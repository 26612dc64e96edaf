"""X2: bodies of every kind, 5,000 of them (FUZZ_CASES for more), on each exchange; in a soak, rounds of them.

Injects: what faults/hostile.py makes: random bytes, random JSON, and submissions, bundles, commands and events with a
member of another type, size or encoding, too deep, twice, NaN, of 5,000 digits, a lone surrogate, or cut off; now and
then with a queue for the reply, or headers of ours that are long or forged. Bites: at least a quarter of the
submissions are refused, and at least a tenth accepted, in which re-reading finds nothing wrong, and of which little is
told: replies of 64 KiB at most, letters with 32 KiB of headers.
Passes: reading never raises; no actor fails, loses its connection or is restarted; each refused job and each broken
ticket has its letter, each accepted job its record; afterwards good ones run as ever. The intake stays within 100 MB
above what it began with.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from callboard import Callboard
from callboard.actors.intake import letters_of
from callboard.brokers.rabbitmq.codec import shape
from callboard.brokers.topology import Names
from callboard.runtime.actor import MAILBOX_LETTERS
from callboard.runtime.clock import SystemClock
from callboard.runtime.connections import Connections
from callboard.runtime.dead_letter import Filter
from callboard.runtime.dead_letters import DeadLetters
from callboard.runtime.draft import Draft
from callboard.runtime.replies import MAX_REPLY, reply
from callboard.runtime.settings import Settings
from callboard.runtime.strict_json import Refusal
from callboard.runtime.submission import MAX_MESSAGE, Refused, Submission, SubmissionReader
from callboard.runtime.wire import Malformed, decode_body, decode_bundle, decode_command, decode_events, encode_body
from faults.door import QUEUE, Door, good, resident, unfinished
from faults.fleet import actor
from faults.hostile import CONTROL, DEAD, EVENTS, JOBS, SUBMIT, Case, cases
from faults.workload import APP

CASES = int(os.environ.get("FUZZ_CASES") or 5000)
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS") or 60)
AT_ONCE = 2  # cases that hypothesis draws together, which is quicker; of many, the later ones would be dull
AFTERWARDS = 100
MAILBOXES = 5  # worker, scanner, recovery, scheduler, retention; intakes have none
MAX_HEADERS = 32 * 1024  # bytes that we read of a message
MEMORY = 100 * 1024 * 1024
FAST = {"CALLBOARD_UNKNOWN_TASK_GRACE": "0"}


def draft(exchange: str, case: Case) -> Draft:
    return Draft(body=case.body, exchange=exchange, routing_key=QUEUE, headers={**case.headers}, reply_to=case.reply_to)


def said_of(submission: Submission, dead: DeadLetters) -> None:
    """What is told of it is within the limits, even where none of it can be stored."""
    refused = Refusal("store-error", "x" * MAX_MESSAGE)
    outcomes = [part.refusal if isinstance(part, Refused) else refused for part in submission.parts]
    assert len(reply(submission.delivery, outcomes, array=submission.array).body) <= MAX_REPLY
    for letter in letters_of(submission, outcomes):
        assert len(shape(dead.message(letter)).properties) <= MAX_HEADERS


def gathered(reader: SubmissionReader, names: Names, *, seed: int) -> list[tuple[Case, Submission | None]]:
    """The cases, each of which was read here first: a failure is then made small by hypothesis."""
    found: list[tuple[Case, Submission | None]] = []
    dead = DeadLetters(cast(Connections, SimpleNamespace(clock=SystemClock(), names=names, settings=Settings())))

    @seeded(seed)
    @settings(
        max_examples=CASES // AT_ONCE,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(cases, min_size=AT_ONCE, max_size=AT_ONCE))
    def read(drawn: list[Case]) -> None:
        for case in drawn:
            decode_bundle(case.body)
            decode_command(case.body)
            decode_events(case.body)
            submission = reader.read(draft(names.submit, case)) if case.exchange == SUBMIT else None
            if submission is not None:
                assert len(submission.bodies()) == len(submission.parts)
                said_of(submission, dead)
            for job in submission.jobs if submission else ():
                body = decode_body(job.payload)
                assert encode_body(body) == job.payload
                assert (body.id, body.queue) == (job.id, QUEUE)
            found.append((case, submission))

    read()
    return found


def broken_tickets(bodies: list[bytes]) -> int:
    """How many letters the worker has to write of these messages. Those of a later version are one letter or none."""
    expected = 0
    for body in bodies:
        bundle, malformed = decode_bundle(body)
        expected += sum(not part.later for part in malformed) + sum(one.queue != QUEUE for one in bundle.jobs)
    return expected


async def throw(door: Door, *, seed: int, first: int) -> None:
    """One round: the cases of this seed, and what is said of them."""
    found = gathered(SubmissionReader(Callboard(), door.names), door.names, seed=seed)
    submissions = [submission for _, submission in found if submission is not None]
    jobs = [job for one in submissions for job in one.jobs]
    refused = [part for one in submissions for part in one.parts if part not in one.jobs]
    codes = Counter(part.refusal.code for one in submissions for part in one.parts if hasattr(part, "refusal"))
    assert len(refused) >= len(submissions) / 4
    assert len(jobs) >= len(submissions) / 10

    thrown = {exchange: [case.body for case, _ in found if case.exchange == exchange] for exchange in KEYS}
    for exchange, bodies in thrown.items():
        own = [{"headers": case.headers, "reply_to": case.reply_to} for case, _ in found if case.exchange == exchange]
        to = f"{door.scene.namespace}.{exchange}"
        await door.submit(bodies, own=own, routing_key=KEYS[exchange], exchange=to)
    after = [f"after-{first + number}" for number in range(AFTERWARDS)]
    await door.submit(map(good, after))
    broken = broken_tickets(thrown[JOBS])
    wanted = sum(codes.values()) + broken + len(thrown[DEAD])
    finals, letters = await door.settled(ids=after, letters=wanted, seconds=240)
    # Without an id of its own a job gets another one each time it is read, and another job may stand for it.
    known = [job.id for job in jobs if job.id.startswith("fuzz-") and job.deduplication is None]
    recorded = await door.scene.find(QUEUE, known)

    ours = Counter(letter.reason for letter in letters if letter.exchange == door.names.submit)
    theirs = Counter(letter.reason for letter in letters if letter.exchange == door.names.jobs)
    commands = [letter for letter in letters if letter.exchange == door.names.control]
    no_commands = [body for body in thrown[CONTROL] if isinstance(read := decode_command(body), Malformed)
                   and not read.later]  # fmt: skip
    print(f"{len(found)} cases, {len(submissions)} submissions: {len(jobs)} jobs taken in, refused {dict(codes)}")
    print(f"{len(thrown[JOBS])} bundles: {dict(theirs)}; {len(thrown[CONTROL])} commands, ", end="")
    print(f"{len(no_commands)} of them none, {len(commands)} letters of these")
    assert ours == codes
    assert theirs["malformed"] == broken
    if not first:  # afterwards some may be of the round before, or counted with it
        assert {letter.body for letter in commands} <= {*no_commands}
        # Each actor puts so many aside in a minute, and counts the others.
        assert min(1, len(no_commands)) <= len(commands) <= 2 * MAILBOXES * MAILBOX_LETTERS
    assert [job_id for job_id, record in zip(known, recorded, strict=True) if record is None] == []
    assert unfinished(finals, after) == []


KEYS = {SUBMIT: QUEUE, JOBS: QUEUE, CONTROL: "all", EVENTS: f"{QUEUE}.completed", DEAD: "fuzz"}


async def fuzz(door: Door, seeds: Iterator[int]) -> None:
    """A round for each seed, all on the same actors."""
    door.start()
    door.fleet.start("others", actor("repeatable-scheduler", "retention", app=APP))
    await door.up()
    intake = door.fleet["intake-1"]
    before = resident(intake.pid)
    for number, seed in enumerate(seeds):
        if number:
            await door.dead.delete(Filter(), limit=50_000)
        await throw(door, seed=seed, first=number * AFTERWARDS)
        print(f"intake: {before / 1e6:.0f} MB before, at most {resident(intake.pid, peak=True) / 1e6:.0f} MB")
        assert resident(intake.pid, peak=True) < before + MEMORY
        assert door.connections_lost() == []
        assert door.fleet.complaints() == []
        assert all(member.running and member.lives == 1 for member in door.fleet)


@pytest.mark.slow
async def test_no_body_stops_an_actor_and_each_is_taken_in_or_put_aside(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url, settings=FAST) as door:
        await fuzz(door, iter([seed]))


@pytest.mark.soak
async def test_no_body_stops_an_actor_however_many_there_are(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    """SOAK_SECONDS of rounds; SOAK_SEED begins with the seed of the round that failed."""
    end = time.monotonic() + SOAK_SECONDS

    def seeds() -> Iterator[int]:
        for one in count(seed):
            if one > seed and time.monotonic() >= end:
                return
            print(f"round with seed {one} (SOAK_SEED)")
            yield one

    async with Door(tmp_path, seed=seed, store=redis_url, broker=amqp_url, settings=FAST) as door:
        await fuzz(door, seeds())
