"""What every broker must do, as a pytest class: inherit from it, say how to make one, and run it.

    class TestMyBroker(BrokerConformance):
        async def make_broker(self) -> Broker:
            return MyBroker.from_url("my://localhost", name="conformance")

        async def cut(self, broker): ...      # take its connection away, until `mend`
        async def mend(self, broker): ...     # it may connect again

Needs pytest and pytest-asyncio. Each test has exchanges and queues under a name of its own; queues are deleted
afterwards through the contract, exchanges by `remove_exchanges`, where the broker outlives the process.
"""

from __future__ import annotations

from .broker_consuming import Consuming
from .broker_publishing import Publishing
from .broker_topology import Topologies


class BrokerConformance(Topologies, Publishing, Consuming):
    """A subclass supplies `make_broker`, `cut`, `mend` and, where needed, `remove_exchanges`."""
