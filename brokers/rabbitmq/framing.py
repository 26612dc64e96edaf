"""Who writes and reads the frames that carry the load: we (`fast`), or aiormq (`plain`).

    amqp://host/                 fast with the versions below, plain with any other, after one warning
    amqp://host/?frames=plain    plain
    amqp://host/?frames=fast     fast, whatever is installed

What fast takes for granted of aiormq is that frames of ours may stand between its own, and that it does not miss those
that are taken out; of RabbitMQ, nothing but AMQP. tests/corpus holds what was recorded with the versions below.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib.metadata import version

from yarl import URL

from ..errors import BrokerError

PARAMETER = "frames"
# From the first up to, not including, the second.
PINNED: Mapping[str, tuple[str, str]] = {
    "aio-pika": ("10.2", "10.3"),
    "aiormq": ("7.2", "7.3"),
    "pamqp": ("4.0", "4.1"),
}

log = logging.getLogger(__name__)


class Frames(StrEnum):
    FAST = "fast"
    PLAIN = "plain"


def frames_for(url: URL, *, installed: Callable[[str], str] = version) -> tuple[URL, Frames]:
    """The URL without our parameter, and what it, or else the installed versions, choose. BrokerError: neither."""
    wanted = url.query.get(PARAMETER)
    url = url.without_query_params(PARAMETER)
    if wanted is None:
        unknown = unknown_versions(installed)
        if not unknown:
            return url, Frames.FAST
        log.warning(
            "RabbitMQ is spoken to through aiormq's own framing, which costs about three times as much per message: "
            "ours is not tested with %s; install versions it is tested with, or add ?%s=plain to the broker's URL",
            ", ".join(unknown),
            PARAMETER,
        )
        return url, Frames.PLAIN
    if wanted not in list(Frames):
        raise BrokerError(f"the broker's URL says {PARAMETER}={wanted!r}: it may be {' or '.join(Frames)}")
    return url, Frames(wanted)


def unknown_versions(installed: Callable[[str], str] = version) -> list[str]:
    """Packages whose version is not within what is pinned, each with both."""
    found = [(package, installed(package), *known) for package, known in PINNED.items()]
    return [
        f"{package} {present} (tested: >={first},<{beyond})"
        for package, present, first, beyond in found
        if not numbers(first) <= numbers(present) < numbers(beyond)
    ]


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 4.1.0rc1 is (4, 1, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
