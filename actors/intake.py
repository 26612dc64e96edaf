"""Intake: takes in what producers in any language submit, of whom nothing is believed.

    callboard.submit ──> callboard.intake ──(a batch)──> read ──> store ──> reply, publish ──> ack
                                                           └── refused ──> callboard.dead ──────┘

In order: a job is in the store, and a refusal confirmed in `callboard.dead`, before its submission is acked. What a
crash leaves between any two steps:

    delivery .. store       the submission is unacked: RabbitMQ delivers it again, to any replica
    store .. ack            a record with an outbox entry, and the submission again: by its id, "existing"
    dead letter .. ack      a second letter of the same submission
    reply .. ack            a second reply

A submission whose jobs have no id, and which came without a message_id, cannot be recognised when it comes again: a
second job, then. Ids are never derived from the content, since equal bodies are legal.

Replicas share the queue. What one holds in memory is bounded: prefetch times the limit of a body, and what is made of
a thousand jobs, or of one array, in each batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from ..brokers.contract import BODY_KEPT, Consumer
from ..brokers.errors import BrokerRefused, BrokerUnavailable
from ..brokers.message import Delivery
from ..metadata.contract import Enqueued, Jobs, QueueControl
from ..metadata.errors import StoreError
from ..metadata.job import NewJob
from ..runtime.actor import Actor, Consumes, Stage, while_it_lives
from ..runtime.dead_letters import MAX_BODY, DeadLetters, Letter, queue_of
from ..runtime.errors import EnqueueUncertain
from ..runtime.quarantine import PASSES, Quarantine
from ..runtime.replies import may_reply, reply
from ..runtime.strict_json import Refusal
from ..runtime.submission import Refused, Submission, SubmissionReader, brief, message_id

MAX_PREFETCH = 256
BATCH = 64  # submissions that are recorded together
BATCHES = 4  # of them under way at a time
PARTS = 1024  # jobs, or what is none, of a batch that are worked on together; an array may hold thousands
LETTERS = 256  # that are published at a time
ALONE = 100  # refused elements of an array that have a letter each; of more, many share one
REPLACED = 8
LARGE = 16 * 1024  # bytes; after a body of that size others of the loop have their turn

Outcome = Enqueued | Refusal


class Intake(Actor):
    kind = "intake"
    consumes = (Consumes("intake", "submit", ("#",)),)
    publishes = ("jobs", "control", "dead")
    requires = (Jobs, QueueControl)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        settings = stage.settings
        self._control = stage.capability(QueueControl)
        self._reader = SubmissionReader(stage.app, stage.names)
        self._dead = DeadLetters(stage.connections)
        self._body_limit = max(settings.intake_body_limit, BODY_KEPT)
        self._prefetch = max(1, min(MAX_PREFETCH, settings.intake_memory // self._body_limit))
        self._quarantine = Quarantine(self._prefetch)
        self._inbox: deque[Delivery] = deque()
        self._held: dict[Delivery, None] = {}
        self._arrived = asyncio.Event()
        self._switch = asyncio.Event()
        self._room = asyncio.Semaphore(BATCHES)
        self._batches: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._known_queues: set[str] = set()
        self._refused_a_reply = False
        self._consumer: Consumer | None = None
        self._replaced: deque[Consumer] = deque(maxlen=REPLACED)  # whose last deliveries may not be settled yet
        self._consumed_with = 0

    async def run(self) -> None:
        stage = self.stage
        stage.broker.watch(while_it_lives(self._connection_changed))
        try:
            async with asyncio.TaskGroup() as group:
                consuming = group.create_task(self._keep_consuming())
                taking = group.create_task(self._take(group))
                await stage.stopping.wait()
                consuming.cancel()
                if self._consumer is not None:
                    await self._consumer.cancel(requeue=False)
                await stage.within_grace(self._idle.wait())
                for task in (taking, *self._batches):
                    task.cancel()
        finally:
            # Also when the actor failed: what a consumer left behind holds would be nobody's.
            for consumer in [*self._replaced, *filter(None, [self._consumer])]:
                await consumer.cancel()
            self._consumer = None

    # --- deliveries in ---

    async def _keep_consuming(self) -> None:
        """With the prefetch that holds now; RabbitMQ fixes it when a consumer starts."""
        failures, refused = 0, ""
        while True:
            self._switch.clear()
            try:
                await self._consume()
            except BrokerUnavailable as error:
                if failures == 0:
                    self.stage.log.warning("%s; nothing is taken in until it is back", error)
                failures += 1
                await self.stage.sleep(self.stage.backoff(failures), self._switch)
            except BrokerRefused as error:
                if str(error) != refused:
                    refused = str(error)
                    self.stage.log.error("nothing is taken in until the broker permits it: %s", refused)
                failures += 1
                await self.stage.sleep(self.stage.backoff(failures), self._switch)
            else:
                failures, refused = 0, ""
                await self._switch.wait()

    async def _consume(self) -> None:
        names, broker, prefetch = self.stage.names, self.stage.broker, self._quarantine.prefetch
        if self._consumer is not None and self._consumer.active and prefetch == self._consumed_with:
            return
        if self._consumer is not None:  # before the next connection starts it again, in which nobody sees it fail
            consumer, self._consumer = self._consumer, None
            self._replaced.append(consumer)
            await consumer.cancel(requeue=False)
        await broker.declare(names.exchanges())
        try:
            self._consumer = await broker.consume(
                names.intake, self._receive, prefetch=prefetch, body_limit=self._body_limit
            )
        except BrokerUnavailable:  # the connection was there, and is gone: the first message may have done it
            self._consumed_with = prefetch
            self._lost()
            raise
        self._consumed_with = prefetch
        self.stage.working = True
        self.stage.log.info("takes in %s, at most %d submissions at a time", names.intake, prefetch)

    def _receive(self, delivery: Delivery) -> None:
        self._held[delivery] = None
        self._idle.clear()
        self._inbox.append(delivery)
        self._arrived.set()

    def _settle(self, delivery: Delivery) -> None:
        delivery.ack()
        self._forget(delivery)
        self._quarantine.passed()
        if self._quarantine.prefetch != self._consumed_with:
            self._switch.set()

    def _forget(self, delivery: Delivery) -> None:
        self._held.pop(delivery, None)
        if not self._held:
            self._idle.set()

    def _connection_changed(self, connected: bool) -> None:
        if not connected and self._consumer is not None and not self._consumer.active:
            self._lost()  # else it is another connection, or an alarm
        self._switch.set()

    def _lost(self) -> None:
        """Whether anything was in hand does not matter: what ends a connection may be the first that it brings."""
        isolated = self._quarantine.prefetch == 1
        self._quarantine.lost(self.stage.clock.elapsed())
        if self._quarantine.prefetch == self._consumed_with and not isolated:
            return
        first = next((delivery for delivery in self._held if delivery.lost), None)
        self.stage.log.error(
            "the connection was lost again: submissions are read one at a time until %d have passed. In hand was %s",
            PASSES,
            "none" if first is None else _named(first),
        )

    # --- a batch ---

    async def _take(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._inbox:
                await self._room.acquire()
                batch = [self._inbox.popleft() for _ in range(min(BATCH, len(self._inbox)))]
                task = group.create_task(self._take_in(batch))
                self._batches.add(task)
                task.add_done_callback(self._batches.discard)

    async def _take_in(self, batch: Sequence[Delivery]) -> None:
        try:
            read: list[Submission] = []
            parts = 0
            for delivery in batch:
                if delivery.lost:
                    continue
                submission = self._reader.read(delivery)
                read.append(submission)
                parts += len(submission.parts)
                if parts >= PARTS:
                    await self._finish(read)
                    read, parts = [], 0
                elif delivery.size > LARGE:
                    await asyncio.sleep(0)
            if read:
                await self._finish(read)
        finally:
            for delivery in batch:
                self._forget(delivery)
            self._room.release()

    async def _finish(self, submissions: list[Submission]) -> None:
        submissions, outcomes = await self._record(submissions)
        await self._put_aside(submissions, outcomes)
        await self._reply(submissions, outcomes)
        for submission in submissions:
            self._settle(submission.delivery)

    async def _record(self, submissions: list[Submission]) -> tuple[list[Submission], list[list[Outcome]]]:
        """What became of each part of each submission, once it is recorded. Those whose delivery was lost meanwhile are
        left out: they come again."""
        failures = 0
        while True:  # an outage ends, or somebody ends the process
            submissions = [one for one in submissions if not one.delivery.lost]
            try:
                allowed = await self._allowed_queues(submissions)
                return submissions, await self._enqueue(submissions, allowed)
            except EnqueueUncertain as error:
                if failures == 0:
                    self.stage.log.warning("%s; trying again", error)
                failures += 1
                await self.stage.clock.sleep(self.stage.backoff(failures, cap=2.0))

    async def _allowed_queues(self, submissions: Sequence[Submission]) -> set[str]:
        """Of the queues that jobs are for, those there are, and new ones as long as there is room."""
        wanted = dict.fromkeys(job.queue for one in submissions for job in one.jobs)
        new = [queue for queue in wanted if queue not in self._known_queues]
        if new:
            limit = self.stage.settings.intake_queue_limit
            self._known_queues = set(await self.stage.patiently(self._control.queues))
            for queue in new:
                if len(self._known_queues) < limit:
                    self._known_queues.add(queue)
        return wanted.keys() & self._known_queues

    async def _enqueue(self, submissions: Sequence[Submission], allowed: set[str]) -> list[list[Outcome]]:
        outcomes: list[list[Outcome]] = [
            [part.refusal if isinstance(part, Refused) else self._no_room(part) for part in one.parts]
            for one in submissions
        ]
        places: list[tuple[int, int]] = []
        jobs: list[NewJob] = []
        for number, one in enumerate(submissions):
            for index, part in enumerate(one.parts):
                if isinstance(part, NewJob) and part.queue in allowed:
                    places.append((number, index))
                    jobs.append(part)
        for (number, index), outcome in zip(places, await self._enqueue_jobs(jobs), strict=True):
            outcomes[number][index] = outcome
        return outcomes

    async def _enqueue_jobs(self, jobs: Sequence[NewJob]) -> Sequence[Outcome]:
        producer = self.stage.connections.producer
        try:
            return await producer.enqueue(jobs)
        except StoreError as error:
            if len(jobs) == 1:
                self.stage.log.error("the store cannot take job %r: %s", jobs[0].id, error)
                return [Refusal("store-error", brief(f"the store cannot take it: {error}"))]
        return [outcome for job in jobs for outcome in await self._enqueue_jobs([job])]

    def _no_room(self, job: NewJob) -> Refusal:
        limit = self.stage.settings.intake_queue_limit
        return Refusal(
            "too-many-queues", f"there is no queue {job.queue!r}, and no more than {limit} may be made this way"
        )

    async def _put_aside(self, submissions: Sequence[Submission], outcomes: Sequence[Sequence[Outcome]]) -> None:
        letters = (
            letter for one, became in zip(submissions, outcomes, strict=True) for letter in letters_of(one, became)
        )
        while some := list(islice(letters, LETTERS)):
            self.stage.log.info("puts aside %d, the first for %s", len(some), some[0].reason)
            failures = 0
            while some := await self._dead.keep(some):  # an outage ends, or somebody ends the process
                failures += 1
                await self.stage.clock.sleep(self.stage.backoff(failures, cap=2.0))
                some = [letter for letter in some if not letter.delivery.lost]  # those come again

    async def _reply(self, submissions: Sequence[Submission], outcomes: Sequence[Sequence[Outcome]]) -> None:
        messages = []
        for one, became in zip(submissions, outcomes, strict=True):
            reply_to = one.delivery.reply_to
            if not reply_to:
                continue
            if may_reply(reply_to, self.stage.settings):
                messages.append(reply(one.delivery, became, array=one.array))
            elif not self._refused_a_reply:
                self._refused_a_reply = True
                self.stage.log.warning(
                    "no reply to %r: only queues that RabbitMQ named, and those that intake_reply_prefixes allows; "
                    "further ones are not logged",
                    reply_to[:100],
                )
        if messages:
            await self.stage.broker.publish(messages, timeout=self.stage.settings.confirm_timeout)


def _named(delivery: Delivery) -> str:
    return f"routing key {delivery.routing_key[:100]!r}, message_id {delivery.message_id!r}, {delivery.size} bytes"


def letters_of(submission: Submission, outcomes: Sequence[Outcome]) -> Iterator[Letter]:
    """What is put aside of a submission: a letter for each refusal, or, where they are many, for some of one code."""
    refusals = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Refusal)}
    if not refusals:
        return
    delivery, bodies = submission.delivery, submission.bodies()
    for group in _together(refusals, bodies) if len(refusals) > ALONE else ([index] for index in refusals):
        first, body = group[0], bodies[group[0]]
        refusal, part = refusals[first], submission.parts[first]
        detail = refusal.message
        name = part.message_id if isinstance(part, Refused) else part.id
        if len(group) > 1:
            body = b"[%s]" % b",".join(bodies[index] for index in group)
            detail = f"{detail} ({len(group)} elements of the array, this is the first)"
            name = message_id(delivery) and f"{message_id(delivery)}.{first}"  # as an array, each gets a number again
        yield Letter(
            queue=queue_of(delivery),
            body=body,
            size=len(body) if submission.array else delivery.size,
            reason=refusal.code,
            detail=detail,
            path=refusal.path,
            delivery=delivery,
            message_id=name,
        )


def _together(refusals: Mapping[int, Refusal], bodies: Sequence[bytes]) -> Iterator[list[int]]:
    """Those of one code, as many as a letter keeps whole."""
    codes: dict[str, list[int]] = {}
    for index, refusal in refusals.items():
        codes.setdefault(refusal.code, []).append(index)
    for indexes in codes.values():
        group: list[int] = []
        size = 0
        for index in indexes:
            size += len(bodies[index]) + 1  # a bracket or comma, and one more bracket
            if group and size >= MAX_BODY:
                yield group
                group, size = [], len(bodies[index]) + 1
            group.append(index)
        yield group
