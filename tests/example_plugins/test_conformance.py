"""All of the tests that a third party's store and broker need: one line each."""

import os

from callboard.runtime.testing.brokers import broker_conformance
from callboard.runtime.testing.stores import store_conformance

TestDiskStore = store_conformance(f"disk://{os.environ['DISK_STORE_FOLDER']}")
TestLoopBroker = broker_conformance(
    "loop://", cut=lambda broker: broker.disconnect(), mend=lambda broker: broker.reconnect()
)
TestServer = broker_conformance(os.environ["LOOP_BROKER_SERVER"])
