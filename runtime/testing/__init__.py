"""For tests of apps, stores and brokers.

running, settled      an app's actors in the test's own event loop
fixtures              pytest fixtures: servers, given or in containers, and namespaces
stores, brokers       conformance suites for stores and brokers; need pytest, so they are imported on their own
"""

from .running import running, settled

__all__ = ["running", "settled"]
