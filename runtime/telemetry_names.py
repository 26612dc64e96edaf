"""What traces and metrics have in common: OpenTelemetry's names for what is told, and what is missing without it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from .errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

SCOPE = "callboard"

# Labels of ours, by OpenTelemetry's conventions for messaging where these have a name.
ATTRIBUTES = {
    "queue": "messaging.destination.name",
    "task": "callboard.task",
    "outcome": "callboard.outcome",
    "state": "callboard.state",
    "became": "callboard.became",
    "why": "callboard.why",
    "actor": "callboard.actor",
}


def resource(service: str) -> Resource:
    """Of this process, which has an instance's id of its own: what it counts must not be taken for another one's.
    OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count before `service` and before that id."""
    from opentelemetry.sdk.resources import Resource  # only where OpenTelemetry is wanted

    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = {}
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in given:
        named["service.name"] = service
    if "service.instance.id=" not in given:
        named["service.instance.id"] = f"{socket.gethostname()}-{os.getpid()}"
    return Resource.create(named)


def not_installed(what: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(f"{what} OpenTelemetry: pip install 'callboard[otel]' ({error})")
