"""Consuming, over any number of connections: a Subscription on each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ..contract import Receive
from .keeper import STEADY_SECONDS, Backoff
from .link import Link
from .news import News
from .subscription import Subscription


class RabbitMQConsumer:
    """What `consume` returned: it gets a new subscription from the broker whenever one ended."""

    def __init__(
        self,
        queue: str,
        receive: Receive,
        *,
        prefetch: int,
        exclusive: bool,
        body_limit: int,
        tag: str,
        backoff: Backoff,
        ended: Callable[[RabbitMQConsumer, Link, str], None],
        cancelled: Callable[[RabbitMQConsumer], None],
    ) -> None:
        self.queue = queue
        self.over = False
        self.backoff = backoff
        self.news = News()
        self._receive = receive
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._body_limit = body_limit
        self._tag = tag
        self._ended = ended
        self._cancelled = cancelled
        self._subscription: Subscription | None = None
        self._started = 0

    @property
    def active(self) -> bool:
        return self._subscription is not None and not self._subscription.over and not self.over

    async def start(self, link: Link) -> None:
        """BrokerError where there is no such queue, or somebody consumes it exclusively."""
        self._started += 1
        began = asyncio.get_running_loop().time()
        subscription = Subscription(
            link, queue=self.queue, receive=self._receive, ended=partial(self._on_end, link, began)
        )
        await subscription.start(
            prefetch=self._prefetch,
            exclusive=self._exclusive,
            tag=f"{self._tag}.{self._started}",
            body_limit=self._body_limit,
        )
        self._subscription = subscription
        if self.over:  # cancelled meanwhile
            await subscription.stop(requeue=True)

    async def cancel(self, *, requeue: bool = True) -> None:
        if not self.over:
            self.over = True
            self._cancelled(self)
        if self._subscription is not None:
            await self._subscription.stop(requeue=requeue)

    def _on_end(self, link: Link, began: float, reason: str) -> None:
        if asyncio.get_running_loop().time() - began >= STEADY_SECONDS:
            self.backoff.succeeded()
        if not self.over:
            self._ended(self, link, reason)
