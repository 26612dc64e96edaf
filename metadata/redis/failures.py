"""The driver's errors, in the words of the contract."""

from __future__ import annotations

import re

from redis import exceptions as driver

from ..errors import MetadataError, StoreError, StoreUnavailable

# Codes of answers that a server gives for a while: it loads its data, is full, cannot write its disk, changes roles.
_PASSING = re.compile(
    r"\b(OOM|MISCONF|NOREPLICAS|READONLY|LOADING|BUSY|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|NOGOODSLAVE|UNBLOCKED)\b"
)
_REFUSED_CREDENTIALS = (
    driver.AuthenticationError,
    driver.AuthorizationError,
    driver.AuthenticationWrongNumberOfArgsError,
    driver.NoPermissionError,
)
_UNAVAILABLE = (
    driver.ConnectionError,
    driver.TimeoutError,
    driver.OutOfMemoryError,
    driver.ReadOnlyError,
    driver.ClusterDownError,
    driver.TryAgainError,
)

Failure = driver.RedisError | OSError


def translated(error: Failure, store: str) -> MetadataError:
    """What to raise `from` the driver's error. The text is the server's or the driver's, which name no password."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, _REFUSED_CREDENTIALS):
        return StoreError(f"store {store} refused the credentials or a command: {text}")
    if isinstance(error, (*_UNAVAILABLE, OSError)) or _PASSING.search(str(error)):
        return StoreUnavailable(store, text)
    return StoreError(f"store {store}: {text}")


def is_closed_transport(error: RuntimeError) -> bool:
    """Whether uvloop says so that the server has gone: it raises no OSError for a write to a closed transport, and the
    driver lets that pass."""
    return "the handler is closed" in str(error)
