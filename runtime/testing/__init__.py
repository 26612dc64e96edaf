"""For tests of apps, stores and brokers.

running, settled      an app's actors in the test's own event loop
simulate, ...         an app in a world of its own: virtual time, faults and crashes, by a seed (simulation/)
fixtures              pytest fixtures: servers, given or in containers, and namespaces
stores, brokers       conformance suites for stores and brokers; need pytest, so they are imported on their own
"""

from .running import running, settled
from .simulation import Faults, Report, Simulation, Violated, crash_at_every_step, simulate

__all__ = ["Faults", "Report", "Simulation", "Violated", "crash_at_every_step", "running", "settled", "simulate"]
