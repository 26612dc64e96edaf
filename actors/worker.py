"""Worker: claims jobs, runs them, finishes them.

    callboard.jobs.<queue> ──bundle──> backlog ──(free slots)──> claim ──> ack ──> run ──> finish ──> events
                                          │                                         ^
                                          │      store ──what a standing claim gets─┘   (standing.py)
                                          └ what can't start within 200 ms: published again, singly, for others

In order: a claim before its ack (a ticket that is not acked comes again), a finish before anything it makes ready is
published. What a crash leaves between any two steps:

    receive .. claim     the ticket is unacked: RabbitMQ delivers it again
    claim .. ack         active; the copy is answered `taken`, or `mine` and known from the table of started dispatches
    ack .. finish        active under this boot's lease: recovered once the lease has run out (the job runs again)
    finish .. publish    waiting in the outbox: a relay publishes

A store or a broker that is away stops nothing that runs: claims and finishes are repeated until they are answered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from ..brokers.errors import BrokerError, BrokerRefused, BrokerUnavailable
from ..brokers.message import Delivery
from ..metadata.contract import Heartbeat, Inspection, Jobs, QueueControl, Workers
from ..metadata.errors import StoreUnavailable
from ..metadata.standing import StandingClaims
from ..runtime.actor import HAND_BACK_SECONDS, Actor, Consumes, Mailbox, Stage
from ..runtime.backlog import Backlog, Parcel
from ..runtime.claims import Claims
from ..runtime.errors import ConfigurationError
from ..runtime.forgotten import Forgotten
from ..runtime.heart import Heart
from ..runtime.inflow import Inflow
from ..runtime.pace import pace_of
from ..runtime.run import Interruption
from ..runtime.runs import Runs
from ..runtime.spare import HAND_ON_SECONDS, Spare
from ..runtime.unusable import Unusable
from ..runtime.wire import Command, Malformed, Ticket, decode_bundle, encode_body
from ..runtime.worker_info import WorkerInfo

SPARE_SECONDS = 0.005  # until a spare ticket is looked at
AHEAD = 3  # times its slots: how many jobs a worker of short ones asks for beyond those it runs


class Worker(Actor):
    kind = "worker"
    consumes = (
        Consumes("jobs.<queue>", "jobs", ("<queue>",)),
        Consumes("control.<instance>", "control", ("all", "<kind>", "<kind>.<queue>", "instance.<boot>")),
    )
    publishes = ("jobs", "events", "control", "dead")
    requires = (Jobs, Workers, Inspection, QueueControl)
    uses = (StandingClaims,)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._jobs = stage.capability(Jobs)
        self._queues = stage.options.queues or tuple(sorted({t.declared.queue for t in stage.app.tasks.values()}))
        if not self._queues:
            raise ConfigurationError("the app has no task, so its worker has no queue to serve; name one with --queue")
        self._boot = secrets.token_hex(16)
        # Queues that nobody put in order take turns.
        in_turn = None if stage.options.queues else (1,) * len(self._queues)
        self._backlog = Backlog(self._queues, stage.options.weights or in_turn)
        self._inflows = {
            queue: Inflow(stage.broker, stage.names, queue, partial(self._receive, queue)) for queue in self._queues
        }
        self._spare = Spare(stage, self._backlog)
        self._paused: set[str] = set()
        self._switching = asyncio.Lock()
        self._work = asyncio.Event()
        self._beaten = asyncio.Event()
        self._certain_until = 0.0  # by clock.elapsed(): past it the lease may be lost, and nothing new is claimed
        self._mailbox = Mailbox(self, keys=(f"instance.{self._boot}", *(f"worker.{queue}" for queue in self._queues)))
        self._info = WorkerInfo(
            self._queues,
            stage.options.concurrency,
            waiting=self._backlog.waiting,
            late_finishes=lambda: self._runs.late_finishes,
            loop_lag=stage.loop_lag,
        )
        self._heart = Heart(
            stage.connections,
            queues=self._queues,
            info=self._info.encode,
            beaten=self._on_beat,
            failed=self._heart_failed,
        )
        self._group = asyncio.TaskGroup()
        self._over = False  # the group takes no more
        self._registering: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._registering.set_result(None)
        self._unusable = Unusable(stage, spawn=self._group.create_task)
        pace = pace_of(self._queues, durable=stage.connections.store.durable)
        self._runs = Runs(
            stage,
            pace=pace,
            spawn=self._group.create_task,
            lease_is_certain=self.lease_is_certain,
            released=self._released,
            changed=self._work.set,
        )
        self._forgotten = Forgotten(stage, queues=self._queues, boot=lambda: self._boot, runs=self._runs)
        self._claims = Claims(
            stage,
            self,
            self._queues,
            self._backlog,
            self._runs,
            self._unusable,
            pace=pace,
            changed=self._work,
            missed=self._forgotten.look_soon,
            spawn=self._group.create_task,
        )

    async def run(self) -> None:
        stage, control = self.stage, self.stage.capability(QueueControl)
        await stage.patiently(lambda: control.register(self._queues))
        self._heart.start(self._boot)
        try:
            async with self._group as group:
                await stage.sleep(3600 * 24 * 365, self._beaten)
                await self._mailbox.open()
                self._paused = set(await self.stage.patiently(lambda: control.paused(self._queues)))
                late = [queue for queue in self._queues if await self._failure(queue) is not None]
                claiming = group.create_task(self._claims.claim_while_there_is_work())
                standing = group.create_task(self._claims.standing.serve())
                upkeep = [group.create_task(work) for work in (self._balance(), self._forgotten.give_back())]
                await asyncio.gather(*map(self._consume, late))  # the others are served meanwhile
                if not stage.stopping.is_set():
                    stage.working = True
                    stage.log.info("worker %s serves %s", self._boot[:8], ", ".join(self._queues))
                await stage.stopping.wait()
                for task in upkeep:
                    task.cancel()
                await self._shut_down(claiming, standing)
        except* StoreUnavailable as gone:
            if not stage.stopping.is_set():
                raise
            stage.log.error("%s; what could not be recorded runs again once the lease is over", gone.exceptions[0])
        finally:
            self._over = True
            # Also when the worker failed: a consumer left behind would take jobs that nobody runs.
            await self._stop_consuming()
            await self._mailbox.close()
            await self._heart.stop()
            await self._runs.close()
        await self._leave()

    def receive(self, command: Command) -> None:
        if self._over:
            return
        match command.command:
            case "cancel":
                for job_id in command.jobs:
                    self._runs.cancel((command.queue or "", job_id))
            case "pause" if command.queue in self._queues:
                self._group.create_task(self._pause(command.queue or ""))
            case "resume" if command.queue in self._queues:
                self._group.create_task(self._resume(command.queue or ""))

    # --- tickets in ---

    async def _consume(self, queue: str) -> None:
        stage, failures, refused = self.stage, 0, ""
        while (failure := await self._failure(queue)) is not None:  # it passes, or somebody ends the process
            if isinstance(failure, BrokerUnavailable):
                if failures == 0:
                    stage.log.warning("the broker is away; queue %s is not consumed until it is back", queue)
            elif str(failure) != refused:
                refused = str(failure)
                stage.log.error("queue %s is not consumed until the broker permits it: %s", queue, refused)
            failures += 1
            await stage.sleep(stage.backoff(failures))
        if refused and not stage.stopping.is_set():
            stage.log.info("queue %s is consumed", queue)

    async def _failure(self, queue: str) -> BrokerError | None:
        """What is in the way; None: it is consumed, or need not be."""
        async with self._switching:
            inflow = self._inflows[queue]
            if queue in self._paused or inflow.flows or self.stage.stopping.is_set():
                return None
            try:
                await self.stage.broker.declare(self.stage.names.jobs_topology(queue))
                await inflow.start()
            except (BrokerUnavailable, BrokerRefused) as error:
                return error
            return None

    def _receive(self, queue: str, delivery: Delivery) -> None:
        bundle, malformed = decode_bundle(delivery.body)
        tickets = []
        for ticket in bundle.jobs:
            if ticket.queue == queue:
                tickets.append(ticket)
            else:
                malformed.append(Malformed(encode_body(ticket), f"is for queue {ticket.queue!r}, came by {queue!r}"))
        parcel = Parcel(delivery, bundle, parts=len(tickets) + len(malformed), arrived=self.stage.clock.elapsed())
        for part in malformed:
            self._unusable.malformed(queue, parcel, part)
        self._inflows[queue].counted(len(tickets))
        if bundle.spare:  # its job is under way now, most likely here: that goes first
            asyncio.get_running_loop().call_later(SPARE_SECONDS, self._receive_spare, queue, parcel, tickets)
        else:
            self._take_in(queue, parcel, tickets)

    def _receive_spare(self, queue: str, parcel: Parcel, tickets: Sequence[Ticket]) -> None:
        if self.stage.stopping.is_set():
            return  # it goes back with its consumer
        handed = [ticket for ticket in tickets if self._claims.standing.was_handed(queue, ticket)]
        for _ in handed:
            parcel.settle()
        if len(handed) < len(tickets):
            self._take_in(queue, parcel, [ticket for ticket in tickets if ticket not in handed])

    def _take_in(self, queue: str, parcel: Parcel, tickets: Sequence[Ticket]) -> None:
        self._backlog.add(queue, parcel, tickets)
        self._work.set()

    async def _pause(self, queue: str) -> None:
        self._paused.add(queue)
        async with self._switching:
            if self._inflows[queue].flows:
                self._backlog.clear(queue)
                await self._inflows[queue].stop()
                self.stage.log.info("queue %s is paused", queue)

    async def _resume(self, queue: str) -> None:
        self._paused.discard(queue)
        await self._consume(queue)

    # --- what claiming asks and tells (see claims.py) ---

    @property
    def boot(self) -> str:
        return self._boot

    def lease_is_certain(self) -> bool:
        return self.stage.clock.elapsed() < self._certain_until

    def _released(self) -> None:
        self._claims.released()

    def met_pause(self, queue: str) -> None:
        if queue not in self._paused:
            self._group.create_task(self._pause(queue))

    def copy_refused(self) -> None:
        self._info.copies_refused += 1

    # --- how much to hold ---

    async def _balance(self) -> None:
        """Hold what can be run soon, and no more: others may have slots free."""
        rate = 0.0
        concurrency = self.stage.options.concurrency
        while True:
            before = self._runs.started
            await self.stage.clock.sleep(HAND_ON_SECONDS)
            started = self._runs.started - before  # in the time that others should not wait
            rate = max(started, rate / 2)
            self._claims.follow(rate)
            old = self.stage.clock.now() - round(HAND_ON_SECONDS * 1000)
            self._runs.hand_back(claimed_before=old, soon=started)
            wanted = concurrency + round(min(rate, AHEAD * concurrency))
            self._claims.standing.review()
            suspects = bool(self._claims.suspects)
            for queue, inflow in self._inflows.items():
                await self._spare.hand_on(queue, room=0 if suspects else self._claims.free + round(rate))
                async with self._switching:
                    if not self.stage.stopping.is_set():
                        await inflow.adapt(wanted)

    # --- the lease ---

    def _on_beat(self, boot: str, reply: Heartbeat, sent: float) -> None:
        if boot != self._boot or self._over:
            return
        if not reply.alive:
            self.lease_lost(boot)
            return
        lease = self.stage.settings.lease_seconds
        self._certain_until = sent + lease - min(1.0, lease / 4)
        self._beaten.set()
        self._claims.told_of_the_lease()
        self._work.set()
        if self._registering.done() and not self.stage.stopping.is_set():
            self._registering = self._group.create_task(self._register_again())
        for key in reply.cancels:
            self._runs.cancel(key)
        self._follow_pauses(set(reply.paused))

    async def _register_again(self) -> None:
        """With each beat: a store that lost its data forgot which queues there are, and recovery looks after those that
        are known."""
        with suppress(StoreUnavailable):
            await self.stage.capability(QueueControl).register(self._queues)

    def _follow_pauses(self, paused: set[str]) -> None:
        """Commands may get lost; the store's word, with each beat, is what holds."""
        if self.stage.stopping.is_set():
            return
        for queue in self._queues:
            if queue in paused and self._inflows[queue].flows:
                self._group.create_task(self._pause(queue))
            elif queue not in paused and queue in self._paused:
                self._group.create_task(self._resume(queue))

    def lease_lost(self, boot: str) -> None:
        if boot != self._boot:
            return
        self._boot = secrets.token_hex(16)
        self._certain_until = 0.0
        lost = self._runs.interrupt(Interruption.LOST, boot=boot)
        self.stage.log.warning(
            "boot %s was declared dead with %d runs under way; going on as %s", boot[:8], lost, self._boot[:8]
        )
        self._heart.renew(self._boot)
        self._group.create_task(self._bind_instance(self._boot))

    async def _bind_instance(self, boot: str) -> None:
        try:
            await self._mailbox.bind(f"instance.{boot}")
        except BrokerError as error:  # also where it refuses, as it may the mailbox itself
            self.stage.log.warning("%s; commands for this worker come with its heartbeats meanwhile", error)

    def _heart_failed(self, error: BaseException) -> None:
        """Without a heart there is no lease: the supervisor starts another worker."""
        self._group.create_task(_raise(error))

    # --- the end ---

    async def _shut_down(self, claiming: asyncio.Task[None], standing: asyncio.Task[None]) -> None:
        """Stop consuming, let runs end within the grace, hand back the rest."""
        stage = self.stage
        self._claims.told_of_the_lease()
        self._work.set()
        await self._stop_consuming()
        if not claiming.done():
            await stage.within_grace(claiming)
        claiming.cancel()
        self._claims.standing.end()
        await stage.within_grace(standing)
        self._runs.hand_back(claimed_before=stage.clock.now() + 1)
        if self._runs:
            stage.log.info("waiting for %d runs, at most %g s", len(self._runs), stage.options.grace_seconds)
            await stage.within_grace(self._runs.idle.wait())
        if self._runs.interrupt(Interruption.STOPPING):
            with suppress(TimeoutError):
                async with asyncio.timeout(HAND_BACK_SECONDS):
                    await self._runs.idle.wait()

    async def _stop_consuming(self) -> None:
        async with self._switching:
            for queue, inflow in self._inflows.items():
                self._backlog.clear(queue)
                await inflow.stop()

    async def _leave(self) -> None:
        if not self._claims.all_answered:
            # A job may yet become ours, and nobody looks for jobs of a boot without a row.
            self.stage.log.info("a claim was not answered; this worker's row stays, for stalled-recovery to remove")
            return
        try:
            await self.stage.capability(Workers).leave(self._boot, self._queues)
        except StoreUnavailable as error:
            self.stage.log.warning("%s; this worker's row stays until its lease has run out", error)


async def _raise(error: BaseException) -> None:
    raise error
