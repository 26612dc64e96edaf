"""The driver's errors, in the words of the contract."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from redis import exceptions as driver

from ..errors import MetadataError, StoreError, StoreUnavailable

# Codes of answers that a server gives for a while: it loads its data, is full, cannot write its disk, changes roles;
# it lets nobody else in, which has no code of its own.
_PASSING = re.compile(
    r"\b(OOM|MISCONF|NOREPLICAS|READONLY|LOADING|BUSY|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|NOGOODSLAVE|UNBLOCKED)\b"
    r"|^ERR max number of clients\b"
)
_CREDENTIALS = (
    driver.AuthenticationError,
    driver.AuthorizationError,
    driver.AuthenticationWrongNumberOfArgsError,
)
_UNAVAILABLE = (
    driver.ConnectionError,
    driver.TimeoutError,
    driver.OutOfMemoryError,
    driver.ReadOnlyError,
    driver.ClusterDownError,
    driver.TryAgainError,
    driver.MovedError,
)

Failure = driver.RedisError | OSError


def translated(error: Failure, store: str) -> MetadataError:
    """What to raise `from` the driver's error. The text is the server's or the driver's, which name no password."""
    if isinstance(error, _CREDENTIALS):
        return StoreError(f"store {store} refused the credentials: {error}")
    if isinstance(error, driver.NoPermissionError):
        return StoreError(f"store {store} does not let this user do what is needed: {error}")
    certificate = _certificate_fault(error)
    if certificate is not None:
        return StoreUnavailable(store, certificate)
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, driver.AskError) and not isinstance(error, driver.MovedError):
        return StoreUnavailable(store, "the slot of this queue is being moved to another node; try again when it is")
    if isinstance(error, (*_UNAVAILABLE, OSError)) or _PASSING.search(str(error)):
        return StoreUnavailable(store, text)
    return StoreError(f"store {store}: {text}")


def _certificate_fault(error: BaseException) -> str | None:
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            reason = one.verify_message.rstrip(".")
            if "hostname" in reason.lower() or "ip address" in reason.lower():
                return f"its certificate is for another host ({reason})"
            return (
                f"its certificate is not trusted ({reason}): name the file of the authority that signed it with"
                " ssl_ca_certs=<path>"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def is_closed_transport(error: RuntimeError) -> bool:
    """Whether uvloop says so that the server has gone: it raises no OSError for a write to a closed transport, and the
    driver lets that pass."""
    return "the handler is closed" in str(error)
