"""What a broker raises. A client library's own errors never leave the broker.

BrokerError
├── BrokerUnavailable   no connection now: what was not confirmed may be repeated
├── BrokerRefused       its user may not do this: it may once somebody permits it
└── TopologyMismatch    an exchange or queue exists with other arguments; both values are named
"""

from __future__ import annotations


class BrokerError(Exception):
    """A fault that waiting will not mend, unless it is a BrokerUnavailable or a BrokerRefused."""


class BrokerUnavailable(BrokerError):
    def __init__(self, broker: str, reason: str) -> None:
        super().__init__(f"broker {broker} is unavailable: {reason}")
        self.broker = broker
        self.reason = reason


class BrokerRefused(BrokerError):
    """RabbitMQ's 403: the message holds what was to be used, and by which user."""


class TopologyMismatch(BrokerError):
    """RabbitMQ's 406: the message holds the declared and the existing value."""
