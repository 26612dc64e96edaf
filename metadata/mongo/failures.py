"""The driver's errors, in the words of the contract."""

from __future__ import annotations

import re

from bson.errors import BSONError
from pymongo import errors as driver

from ..errors import MetadataError, StoreError, StoreRefused, StoreUnavailable

DUPLICATE = 11000

_CERTIFICATE = re.compile(r"certificate verify failed: ([^(\n]{1,200}) \(_ssl", re.IGNORECASE)

# Codes of answers that a server gives for a while: it stops, changes roles, is out of space, gave up waiting, makes or
# drops an index.
_PASSING = frozenset({
    6, 7, 24, 50, 64, 79, 89, 91, 100, 112, 134, 175, 189, 202, 246, 262, 317, 358, 384, 9001, 10058, 10107, 11600,
    11602, 12587, 13388, 13435, 13436, 14031,
})  # fmt: skip
# What a standalone server answers to a repeat that the driver numbers as for a replica set, while it does not know yet
# what it talks to: seen where one came back after a crash. Nothing was written.
_NUMBERED = "Transaction numbers are only allowed on a replica set member or mongos"
_REFUSED = frozenset({8, 13, 18, 31, 8000})  # credentials, permissions
_UNAVAILABLE = (driver.ConnectionFailure, driver.WTimeoutError, driver.ExecutionTimeout, driver.WaitQueueTimeoutError)

Failure = driver.PyMongoError | BSONError | OSError | ValueError | OverflowError
FAILURES = (driver.PyMongoError, BSONError, OSError, ValueError, OverflowError)


def translated(error: Failure, store: str) -> MetadataError:
    """What to raise `from` the driver's error. The text is the server's or the driver's, which name no password."""
    text = f"{type(error).__name__}: {_shortened(str(error))}"
    codes = _codes(error)
    if certificate := _CERTIFICATE.search(str(error)):
        return StoreUnavailable(
            store,
            f"its certificate is not accepted ({certificate[1].rstrip('.')}): it must be for the host in the URL, and"
            " signed by an authority known here, whose file tlsCAFile=<path> names",
        )
    if isinstance(error, driver.ConfigurationError):
        if type(error.__cause__).__module__.startswith("dns."):
            return StoreUnavailable(store, f"its servers are not found by DNS: {_shortened(str(error))}")
        return StoreRefused(f"{store} cannot be used with the options of its URL: {_shortened(str(error))}")
    if "does not have journaling enabled" in str(error):
        return StoreRefused(
            f"{store} must not be used as it is: it runs without a journal (--nojournal), so that a crash loses"
            " answered writes; start it with one"
        )
    if codes & _REFUSED:
        return StoreError(f"store {store} refused the credentials or a command: {text}")
    if _NUMBERED in str(error):  # in words of ours: the driver's ask for a setting, which nobody needs
        return StoreUnavailable(store, "it came back while a write was repeated; nothing was written by that")
    if isinstance(error, (*_UNAVAILABLE, OSError)) or codes & _PASSING or _unconfirmed(error):
        return StoreUnavailable(store, text)
    return StoreError(f"store {store}: {text}")


def _codes(error: Failure) -> frozenset[int]:
    codes = {getattr(error, "code", None)}
    if isinstance(error, driver.BulkWriteError):
        codes.update(one.get("code") for one in error.details.get("writeErrors", ()))
    return frozenset(code for code in codes if isinstance(code, int))


def _unconfirmed(error: Failure) -> bool:
    """Whether it was written, but not by enough servers in time: the call is to be repeated."""
    return isinstance(error, driver.WriteConcernError) or (
        isinstance(error, driver.BulkWriteError) and bool(error.details.get("writeConcernErrors"))
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 500 else text[:500] + " ..."
