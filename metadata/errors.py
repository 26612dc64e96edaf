"""What a metadata store raises. A driver's own errors never leave the store.

MetadataError
├── StoreUnavailable    the store did not answer, or cannot take writes now: repeat the same call later
├── StoreError          a fault that repeating will not mend: wrong data type, refused credentials, a bug
├── StoreRefused        the store as it is set up must not be used: the message says what to change
└── CapabilityMissing   the store does not offer what was asked of it
"""

from __future__ import annotations


class MetadataError(Exception):
    """Root of everything a store raises."""


class StoreUnavailable(MetadataError):
    """The operation may or may not have taken effect; every operation may be repeated without harm."""

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(f"store {store} is unavailable: {reason}")
        self.store = store
        self.reason = reason


class StoreError(MetadataError):
    """The store answered with a fault that repeating the call will not mend."""


class StoreRefused(MetadataError):
    """The store's version or settings would lose or corrupt jobs; the message names the setting and its value."""


class CapabilityMissing(MetadataError):
    def __init__(self, *, capability: str, store: str, actor: str | None = None) -> None:
        wanted = f"actor {actor!r} needs" if actor else "asked for"
        super().__init__(f"{wanted} the capability {capability}, which the store {store!r} does not offer")
        self.capability = capability
        self.store = store
        self.actor = actor
