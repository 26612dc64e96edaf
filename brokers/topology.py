"""Exchanges, queues and bindings, as data, and the names they have in a namespace.

    callboard.submit    topic    job queue             -> callboard.intake
    callboard.jobs      direct   job queue             -> callboard.jobs.<job queue>
    callboard.events    topic    <job queue>.<event>   -> whoever binds
    callboard.control   topic    all, <kind>, <kind>.<job queue>, instance.<boot id>  -> each actor's mailbox
    callboard.dead      topic    job queue or reason   -> callboard.dead

Arguments hold only what a policy cannot set: queue arguments can never be changed afterwards.
"""

from __future__ import annotations

from msgspec import Struct

MAX_PRIORITY = 9  # AMQP priorities 0..9, from the jobs' 10..1


class Exchange(Struct, frozen=True):
    name: str
    type: str  # "topic" | "direct"


class Queue(Struct, frozen=True):
    """`exclusive` queues belong to one connection and go with it; all others are durable."""

    name: str
    exclusive: bool = False
    arguments: tuple[tuple[str, str | int], ...] = ()


class Binding(Struct, frozen=True):
    queue: str
    exchange: str
    routing_key: str


class Topology(Struct, frozen=True):
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            exchanges=tuple(dict.fromkeys(self.exchanges + other.exchanges)),
            queues=tuple(dict.fromkeys(self.queues + other.queues)),
            bindings=tuple(dict.fromkeys(self.bindings + other.bindings)),
        )


class Names(Struct, frozen=True):
    """The names of everything in one namespace of the broker."""

    namespace: str = "callboard"
    queue_type: str = "classic"  # of the job queues: "classic" (with priorities) or "quorum"

    @property
    def submit(self) -> str:
        return f"{self.namespace}.submit"

    @property
    def jobs(self) -> str:
        return f"{self.namespace}.jobs"

    @property
    def events(self) -> str:
        return f"{self.namespace}.events"

    @property
    def control(self) -> str:
        return f"{self.namespace}.control"

    @property
    def dead(self) -> str:
        return f"{self.namespace}.dead"

    @property
    def intake(self) -> str:
        return f"{self.namespace}.intake"

    def job_queue(self, queue: str) -> str:
        return f"{self.namespace}.jobs.{queue}"

    def mailbox(self, boot: str) -> str:
        return f"{self.namespace}.control.{boot}"

    def listener(self, boot: str) -> str:
        return f"{self.namespace}.events.{boot}"

    def exchanges(self) -> Topology:
        """The five exchanges, and the queues for submissions and dead letters: what every process declares first.

        Submissions thus wait from the first process on, whether an intake runs or not. Both queues are quorum: what is
        in them has no second copy yet. Delivery limits and the dead-letter exchange are a policy's to set, see
        PROTOCOL.md."""
        return Topology(
            exchanges=(
                Exchange(self.submit, "topic"),
                Exchange(self.jobs, "direct"),
                Exchange(self.events, "topic"),
                Exchange(self.control, "topic"),
                Exchange(self.dead, "topic"),
            ),
            queues=tuple(Queue(name, arguments=(("x-queue-type", "quorum"),)) for name in (self.dead, self.intake)),
            bindings=(Binding(self.dead, self.dead, "#"), Binding(self.intake, self.submit, "#")),
        )

    def jobs_topology(self, queue: str) -> Topology:
        """A job queue and its binding; declared by producers and workers alike."""
        arguments: tuple[tuple[str, str | int], ...] = (("x-queue-type", self.queue_type),)
        if self.queue_type == "classic":
            arguments += (("x-max-priority", MAX_PRIORITY),)
        name = self.job_queue(queue)
        return Topology(queues=(Queue(name, arguments=arguments),), bindings=(Binding(name, self.jobs, queue),))
