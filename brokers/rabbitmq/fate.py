"""What the closing of a publishing channel says of one message that was under way."""

from __future__ import annotations

import re

from ..message import Message, Receipt

_TOO_LARGE = re.compile(r"message size \d+ is larger than configured max size (\d+)")


def fate(message: Message, code: int, reason: str) -> Receipt | None:
    """None: it has nothing to do with this message."""
    if code == 404 and f"no exchange '{message.exchange}' " in reason:
        return Receipt.RETURNED
    too_large = _TOO_LARGE.search(reason) if code == 406 else None
    return Receipt.REFUSED if too_large is not None and len(message.body) > int(too_large[1]) else None
