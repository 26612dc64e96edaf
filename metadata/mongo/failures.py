"""The driver's errors, in the words of the contract."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo import errors as driver

from ..errors import MetadataError, StoreError, StoreRefused, StoreUnavailable

DUPLICATE = 11000

_CERTIFICATE = re.compile(r"certificate verify failed: ([^(\n]{1,200}) \(_ssl", re.IGNORECASE)

# Codes of answers that a server gives for a while: it stops, changes roles, is out of space, gave up waiting, makes or
# drops an index; the rest of an answer is not there any more, or an operator ended the operation.
_PASSING = frozenset({
    6, 7, 24, 43, 50, 64, 79, 89, 91, 100, 112, 134, 175, 189, 202, 237, 246, 262, 317, 358, 384, 9001, 10058, 10107,
    11600, 11601, 11602, 12587, 13388, 13435, 13436, 14031,
})  # fmt: skip
# What a standalone server answers to a repeat that the driver numbers as for a replica set, while it does not know yet
# what it talks to: seen where one came back after a crash. Nothing was written.
_NUMBERED = "Transaction numbers are only allowed on a replica set member or mongos"
_ATLAS = 8000  # its own code, for either
_CREDENTIALS = frozenset({18, _ATLAS})
_RIGHTS = frozenset({13, 31})
_COMMAND = re.compile(r"(?s)to execute command \{ (\w+):.*")  # what follows is the whole of it, with what it wrote
_TIMEOUTS = re.compile(r"\s*\(configured timeouts: [^)]*\)")
_TOO_OLD = re.compile(r"Server at (\S+) reports wire version \d+")
_TOO_NEW = re.compile(r"requires wire version \d+, but this version of PyMongo")
# How the driver says that it found no server: why, for each that was asked, how long it looked, and all it knows.
_NOT_FOUND = re.compile(r"(?s)(.*), Timeout: ([\d.]+)s, Topology Description: (.*)")
_SILENT = re.compile(r"<ServerDescription \('([^']*)', (\d+|None)\) server_type: Unknown")
_NO_CONNECTION = re.compile(r"\[Errno (\d+)\] Connect call failed")
_OTHER_SET = re.compile(r"available for replica set name (\".*\")")
_MOST_HOSTS = 4  # in a sentence
_UNAVAILABLE = (driver.ConnectionFailure, driver.WTimeoutError, driver.ExecutionTimeout, driver.WaitQueueTimeoutError)

Failure = driver.PyMongoError | BSONError | OSError | ValueError | OverflowError
FAILURES = (driver.PyMongoError, BSONError, OSError, ValueError, OverflowError)


def translated(error: Failure, store: str) -> MetadataError:
    """What to raise `from` the driver's error. The text is the server's or the driver's, which name no password."""
    text, codes = _shortened(_text(error)), _codes(error)
    if certificate := _CERTIFICATE.search(str(error)):
        return StoreUnavailable(
            store,
            f"its certificate is not accepted ({certificate[1].rstrip('.')}): it must be for the host in the URL, and"
            " signed by an authority known here, whose file tlsCAFile=<path> names",
        )
    if isinstance(error, driver.ConfigurationError):
        if type(error.__cause__).__module__.startswith("dns."):
            return StoreUnavailable(store, f"its servers are not found by DNS: {_shortened(str(error))}")
        if too_old := _TOO_OLD.search(str(error)):
            return StoreRefused(
                f"{store} must not be used as it is: the MongoDB at {too_old[1]} is too old: use 5.0 or later"
            )
        if _TOO_NEW.search(str(error)):
            return StoreRefused(f"{store} is too new for the driver that is installed here: update pymongo")
        return StoreRefused(f"{store} cannot be used with the options of its URL: {_shortened(str(error))}")
    if "does not have journaling enabled" in str(error):
        return StoreRefused(
            f"{store} must not be used as it is: it runs without a journal (--nojournal), so that a crash loses"
            " answered writes; start it with one"
        )
    if codes & (_CREDENTIALS | _RIGHTS):
        return StoreError(f"store {store} {_refusal(codes, text)}")
    if _NUMBERED in str(error):  # in words of ours: the driver's ask for a setting, which nobody needs
        return StoreUnavailable(store, "it came back while a write was repeated; nothing was written by that")
    if isinstance(error, (*_UNAVAILABLE, OSError)) or codes & _PASSING or _unconfirmed(error):
        return StoreUnavailable(store, text)
    return StoreError(f"store {store}: {text}")


def _refusal(codes: frozenset[int], text: str) -> str:
    if "requires authentication" in text:
        return f"asks for credentials: {text}; give a user and a password in the URL"
    if codes & _CREDENTIALS and "not allowed" not in text:
        return f"refused the credentials: {text.rstrip('.')}; check user, password and authSource in the URL"
    return f"does not let this user do what is needed: {text}; give it the role readWrite on the database"


def _text(error: Failure) -> str:
    """Without what the driver adds for those who debug it: the whole answer, the documents, its settings."""
    if isinstance(error, driver.ServerSelectionTimeoutError):
        return _unfound(str(error))
    if (answer := _answer(error)) is not None:
        told = _COMMAND.sub(r"to execute \1", str(answer.get("errmsg", "")))
        return ": ".join(part for part in (answer.get("codeName"), told) if part)
    text = _TIMEOUTS.sub("", str(error))
    return text if isinstance(error, driver.ConnectionFailure) and text else f"{type(error).__name__}: {text}"


def _answer(error: Failure) -> Mapping[str, Any] | None:
    """The server's, or the part of it that says what was wrong."""
    details = getattr(error, "details", None)
    if isinstance(error, driver.BulkWriteError):
        faults = [*error.details.get("writeErrors", ()), *error.details.get("writeConcernErrors", ())]
        details = faults[0] if faults else None
    return details if isinstance(details, Mapping) and details.get("errmsg") else None


def _unfound(text: str) -> str:
    """Which servers did not answer for how long, and the first reason."""
    found = _NOT_FOUND.fullmatch(text)
    if found is None:
        return _TIMEOUTS.sub("", text)
    reason, within = _TIMEOUTS.split(found[1])[0], f"within {float(found[2]):g} s"
    silent = [host if port == "None" else f"{host}:{port}" for host, port in _SILENT.findall(found[3])]
    hosts = ", ".join(silent[:_MOST_HOSTS]) + (f" and {len(silent) - _MOST_HOSTS} more" * (len(silent) > _MOST_HOSTS))
    if 'match selector "Primary()"' in reason or "available for writes" in reason:
        return f"no primary was found {within}" + (f"; {hosts} did not answer" if silent else "")
    if not silent:
        named = _OTHER_SET.search(reason)
        return (
            f"no server of the URL is in the replica set {named[1]} that it names" if named else f"{reason}, {within}"
        )
    if reason.startswith("Could not reach any servers"):
        reason = "these names are from the settings of the replica set, and must be reachable from here"
    elif refused := _NO_CONNECTION.search(reason):
        reason = os.strerror(int(refused[1]))
    for host in silent:
        reason = reason.replace(f"{host}: ", "")
    return f"{hosts} did not answer {within}" + ("" if reason.endswith("found yet") else f": {reason.strip(' :')}")


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
    return text if len(text) <= 300 else text[:300] + " ..."
