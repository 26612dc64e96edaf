"""One run of one job: what it is, how it is interrupted, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from ..metadata.contract import Claimed, Outcome
from .context import Context
from .wire import Ticket


class Interruption(StrEnum):
    """Why a handler is interrupted. TIMEOUT is an error of the run, the others are not."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"  # somebody asked for it
    LOST = "lost"  # the worker lost its lease: what the run returns will be refused
    WAITED = "waited"  # for a slot, and longer than others should wait for the job
    STOPPING = "stopping"  # the worker hands back what it could not end in its grace


class Run:
    """Made when a claim succeeded, gone when its finish was answered."""

    __slots__ = (
        "abandonable",
        "adopted",
        "boot",
        "claimed",
        "context",
        "interrupt",
        "interruption",
        "outcome",
        "queue",
        "sent_at",
        "started_at",
        "ticket",
    )

    def __init__(self, *, queue: str, ticket: Ticket, claimed: Claimed, boot: str, started_at: int) -> None:
        self.queue = queue
        self.ticket = ticket
        self.claimed = claimed
        self.boot = boot
        self.started_at = started_at  # ms since the epoch; until it has a slot: when it was claimed
        self.sent_at = 0  # ms since the epoch, by the clock of who sent its ticket; 0: not known
        self.adopted = False  # its claim made the record: the producer's own write may still be on its way
        self.interruption: Interruption | None = None
        self.interrupt: Callable[[], object] | None = None  # set while the handler can be interrupted
        self.abandonable = False  # interrupted, it may yet go on for ever; its outcome need not wait for that
        self.context: Context | None = None
        self.outcome: Outcome | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.queue, self.ticket.id

    def stop(self, reason: Interruption) -> None:
        """Interrupt the handler; the first reason counts. Does nothing once the handler has ended."""
        if self.interruption is None and self.outcome is None:
            self.interruption = reason
            if self.context is not None:
                self.context.cancel()
            if self.interrupt is not None:
                self.interrupt()
