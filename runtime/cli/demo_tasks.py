"""The demo's sample app: tasks that succeed, fail, retry, wait and repeat, and what makes jobs of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from ..app import Callboard
from ..context import Context
from ..task import Task

LONGEST_TASK_SECONDS = 0.9
SHOWS = {
    "emails.send": "succeeds",
    "emails.remind": "waits for its time",
    "payments.charge": "fails, is retried",
    "reports.build": "blocks, in a thread",
    "reports.import": "fails for good",
    "housekeeping.beat": "repeats itself",
}


class PaymentDeclined(Exception):
    pass


class GatewayBusy(Exception):
    pass


class SampleApp:
    """`random` decides what fails and how long things take."""

    def __init__(self, random: Random) -> None:
        self.app = Callboard(broker="memory://", store="memory://", namespace="demo", scan_interval=0.5)
        self._random = random
        self._number = 0
        self.beats = 0
        self._register()

    async def start(self) -> None:
        """What is there from the beginning: the task that repeats itself, and a few jobs of each kind."""
        await self._beat.options(job_id="beat-0").enqueue(0)
        for _ in range(2):
            for enqueue in self._kinds:
                await enqueue()

    async def enqueue_one(self) -> None:
        """One more job of some kind, emails most often."""
        (enqueue,) = self._random.choices(self._kinds, weights=self._weights)
        await enqueue()

    def pause_before_next(self) -> float:
        """Seconds."""
        return self._random.uniform(0.02, 0.12)

    @property
    def _kinds(self) -> list[Callable[[], Awaitable[object]]]:
        return [self._email, self._payment, self._report, self._reminder, self._import]

    _weights = (8, 3, 2, 2, 1)

    async def _email(self) -> None:
        await self._send_email.enqueue(f"customer-{self._next()}@example.org", subject="Your order")

    async def _payment(self) -> None:
        await self._charge.options(priority=2).enqueue(f"order-{self._next()}", amount=self._random.randint(5, 500))

    async def _report(self) -> None:
        await self._build_report.enqueue(pages=self._random.randint(3, 8))

    async def _reminder(self) -> None:
        delay = self._random.uniform(0.5, 3.0)
        await self._remind.options(delay=delay).enqueue(f"customer-{self._next()}")

    async def _import(self) -> None:
        await self._import_file.enqueue(f"upload-{self._next()}.csv")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _register(self) -> None:
        app, random = self.app, self._random

        @app.task(name="emails.send", queue="emails")
        async def send_email(to: str, *, subject: str) -> str:
            await asyncio.sleep(random.uniform(0.02, 0.2))
            return f"{subject} -> {to}"

        @app.task(name="emails.remind", queue="emails")
        async def remind(customer: str) -> str:
            await asyncio.sleep(0.05)
            return f"reminded {customer}"

        @app.task(name="payments.charge", queue="payments", retries=4, backoff=0.4, give_up_on=PaymentDeclined)
        async def charge(ctx: Context, order: str, *, amount: int) -> str:
            await asyncio.sleep(random.uniform(0.05, 0.25))
            if random.random() < 0.45:
                raise GatewayBusy(f"no answer for {order}")
            if random.random() < 0.08:
                raise PaymentDeclined(f"{order}: {amount} EUR refused")
            return f"charged {amount} EUR"

        @app.task(name="reports.build", queue="reports")
        def build_report(ctx: Context, pages: int) -> int:
            for page in range(pages):  # a blocking function: it runs in a thread
                time.sleep(LONGEST_TASK_SECONDS / 10)
                ctx.progress({"page": page + 1, "of": pages})
            return pages

        @app.task(name="reports.import", queue="reports", retries=1, backoff=0.3)
        async def import_file(name: str) -> None:
            await asyncio.sleep(0.1)
            raise ValueError(f"{name}, line 7: 3 columns, not 4")

        @app.task(name="housekeeping.beat", queue="housekeeping")
        async def beat(number: int) -> int:
            self.beats = number + 1
            # The id makes a repeat of this run harmless: one job per number.
            await self._beat.options(delay=1.0, job_id=f"beat-{number + 1}").enqueue(number + 1)
            return number

        self._send_email: Task[..., Any] = send_email
        self._remind: Task[..., Any] = remind
        self._charge: Task[..., Any] = charge
        self._build_report: Task[..., Any] = build_report
        self._import_file: Task[..., Any] = import_file
        self._beat: Task[..., Any] = beat
