"""What every broker must do, as a pytest class: name a URL, or inherit from it and say how to make one.

    from callboard.runtime.testing.brokers import broker_conformance

    TestMyBroker = broker_conformance("mine://localhost:4711")     # a broker that is installed, by its entry point

    class TestMyBroker(BrokerConformance):                         # or more by hand
        async def make_broker(self) -> Broker:
            return MyBroker.from_url("mine://localhost", name="conformance")

        async def cut(self, broker): ...      # take its connection away, until `mend`
        async def mend(self, broker): ...     # it may connect again

Needs pytest and pytest-asyncio. Each test has exchanges and queues under a name of its own; queues are deleted
afterwards through the contract, exchanges by `remove_exchanges`, where the broker outlives the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

pytest.register_assert_rewrite(
    *(f"{__package__}.{name}" for name in ("broker_stage", "broker_consuming", "broker_publishing", "broker_topology"))
)

# After the registration, so that failed assertions are explained: pytest rewrites a module when it is first imported.
from ...brokers.contract import Broker  # noqa: E402
from ..registry import make_broker  # noqa: E402
from .broker_consuming import Consuming  # noqa: E402
from .broker_publishing import Publishing  # noqa: E402
from .broker_topology import Topologies  # noqa: E402
from .line import Line  # noqa: E402

__all__ = ["BrokerConformance", "broker_conformance"]


class BrokerConformance(Topologies, Publishing, Consuming):
    """A subclass supplies `make_broker`, `cut`, `mend` and, where needed, `remove_exchanges`."""


def broker_conformance(
    url: str, *, cut: Callable[[Any], None] | None = None, mend: Callable[[Any], None] | None = None
) -> type[BrokerConformance]:
    """The suite on the broker that an entry point `callboard.brokers` of any installed distribution has for this URL.

    A URL with a host names its port too, and is reached by a line which the tests cut; for any other, `cut` and `mend`
    take a broker's connection away and give it back. Exchanges, `conformance...`, stay: give it a server that may be
    thrown away. ConfigurationError, from each test: there is no such broker.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if host is None and (cut is None or mend is None):
        raise ValueError(f"{parts.scheme}:// names no host whose connections could be cut: pass cut and mend")
    if host is not None and parts.port is None:
        raise ValueError(f"{parts.scheme}://{host} must name its port")

    class ByUrl(BrokerConformance):
        @pytest_asyncio.fixture(autouse=True)
        async def _between(self) -> AsyncIterator[None]:
            self._url = url
            if host is None:
                yield
                return
            async with Line(host, parts.port or 0) as self._line:
                user, at, _ = parts.netloc.rpartition("@")
                self._url = parts._replace(netloc=f"{user}{at}127.0.0.1:{self._line.port}").geturl()
                yield

        async def make_broker(self) -> Broker:
            return make_broker(self._url, name="conformance")

        async def cut(self, broker: Broker) -> None:
            if cut is not None:
                cut(broker)
            else:
                self._line.cut()

        async def mend(self, broker: Broker) -> None:
            if mend is not None:
                mend(broker)
            else:
                self._line.mend()

    return ByUrl
