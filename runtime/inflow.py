"""One queue's consumer in a worker, with a prefetch that follows what comes.

Prefetch counts messages, and a message is one job or a bundle of 128. A worker wants its slots' worth of jobs and a
little ahead, more ahead where jobs are short: a few bundles hold that, or hundreds of single jobs.
RabbitMQ fixes a consumer's prefetch when it starts, so another one replaces it: the old one ends once its deliveries
are settled.
"""

from __future__ import annotations

from ..brokers.contract import Broker, Consumer, Receive
from ..brokers.errors import BrokerError, BrokerUnavailable
from ..brokers.topology import Names

FEWEST, MOST = 3, 256  # messages
FIRST = 8


class Inflow:
    def __init__(self, broker: Broker, names: Names, queue: str, receive: Receive) -> None:
        self._broker = broker
        self._names = names
        self._queue = queue
        self._receive = receive
        self._consumer: Consumer | None = None
        self._prefetch = FIRST
        self._messages = 0
        self._jobs = 0

    @property
    def flows(self) -> bool:
        return self._consumer is not None

    async def start(self) -> None:
        """BrokerUnavailable, BrokerRefused: nothing was started."""
        self._consumer = await self._broker.consume(
            self._names.job_queue(self._queue), self._receive, prefetch=self._prefetch
        )

    async def stop(self) -> None:
        """What is unsettled goes back at once."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.cancel(requeue=True)

    def counted(self, jobs: int) -> None:
        """A message brought so many jobs."""
        self._messages += 1
        self._jobs += jobs

    async def adapt(self, wanted: int) -> None:
        """Prefetch for about `wanted` jobs, by what the latest messages held. Changes of less than half are not worth
        another consumer."""
        if self._consumer is None or self._messages < FEWEST:
            return
        size = self._jobs / self._messages
        self._messages, self._jobs = self._messages // 2, self._jobs // 2
        prefetch = max(FEWEST, min(MOST, round(wanted / max(size, 1.0))))
        if self._prefetch / 2 < prefetch < self._prefetch * 2:
            return
        old, before = self._consumer, self._prefetch
        self._prefetch = prefetch
        try:
            await self.start()
        except BrokerUnavailable:  # the old one is started again with the connection
            self._prefetch = before
            return
        except BrokerError:  # the old one serves on, and as many messages have to come before this is tried again
            self._prefetch, self._messages, self._jobs = before, 0, 0
            return
        await old.cancel(requeue=False)
