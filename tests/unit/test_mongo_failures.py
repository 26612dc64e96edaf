"""Which of the driver's errors are worth a repeat, and in which words they are told."""

from __future__ import annotations

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    CursorNotFound,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from callboard.metadata.errors import MetadataError, StoreError, StoreRefused, StoreUnavailable
from callboard.metadata.mongo.failures import translated

NUMBERED = "Transaction numbers are only allowed on a replica set member or mongos"


def test_a_repeat_that_the_driver_numbered_for_a_server_that_knows_no_numbers_is_made_again() -> None:
    told = "This MongoDB deployment does not support retryable writes. Please add retryWrites=false to your connection"
    details = {"ok": 0.0, "errmsg": NUMBERED, "code": 20, "codeName": "IllegalOperation"}

    for text in (told, NUMBERED):
        failure = translated(OperationFailure(text, 20, details), "mongodb://h")
        assert isinstance(failure, StoreUnavailable)
        assert "retryWrites" not in str(failure)


def test_what_a_server_will_never_take_is_not_repeated() -> None:
    assert not isinstance(translated(OperationFailure("no such command", 20), "mongodb://h"), StoreUnavailable)
    assert isinstance(translated(AutoReconnect("gone"), "mongodb://h"), StoreUnavailable)


def test_what_a_change_of_indexes_interrupts_is_repeated() -> None:
    for code, told in ((175, "query plan killed :: index 'state' dropped"), (12587, "an index build is in progress")):
        assert isinstance(translated(OperationFailure(told, code), "mongodb://h"), StoreUnavailable)


def test_an_answer_whose_rest_is_gone_and_an_operation_that_was_ended_are_repeated() -> None:
    for error in (
        CursorNotFound("cursor id 1 not found", 43),
        OperationFailure("cursor killed", 237),
        OperationFailure("operation was interrupted", 11601),
    ):
        assert isinstance(translated(error, "mongodb://h"), StoreUnavailable)


TAIL = " (configured timeouts: socketTimeoutMS: 5000.0ms, connectTimeoutMS: 5000.0ms)"
NO = "[Errno 111] Connect call failed ('127.0.0.1', {})" + TAIL


def _unknown(host: str, port: int | None, reason: str) -> str:
    return f"<ServerDescription ({host!r}, {port}) server_type: Unknown, rtt: None, error=AutoReconnect({reason!r})>"


def _unfound(reason: str, *servers: str) -> ServerSelectionTimeoutError:
    """As PyMongo words it."""
    known = f"<TopologyDescription id: 6b03, topology_type: Unknown, servers: [{', '.join(servers)}]>"
    return ServerSelectionTimeoutError(f"{reason}, Timeout: 5.0s, Topology Description: {known}")


PRIMARY = 'No replica set members match selector "Primary()"'
SECONDARY = "<ServerDescription ('b', 2) server_type: RSSecondary, rtt: 0.01>"
UNAUTHORIZED = 'not authorized on db to execute command { insert: "x.jobs", documents: [ { payload: "hunter2" } ] }'


def _failed(code: int, name: str, text: str) -> OperationFailure:
    return OperationFailure(text, code, {"ok": 0.0, "errmsg": text, "code": code, "codeName": name})


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            _unfound(f"a:1: {NO.format(1)}", _unknown("a", 1, f"a:1: {NO.format(1)}")),
            "a:1 did not answer within 5 s: Connection refused",
        ),
        (
            _unfound(
                f"a:1: [Errno -2] Name or service not known{TAIL},b:2: {NO.format(2)}",
                _unknown("a", 1, "a:1: [Errno -2]"),
                _unknown("b", 2, NO.format(2)),
            ),
            "a:1, b:2 did not answer within 5 s: [Errno -2] Name or service not known",
        ),
        (
            _unfound("No servers found yet", *(_unknown("h", port, "") for port in range(1, 7))),
            "h:1, h:2, h:3, h:4 and 2 more did not answer within 5 s",
        ),
        (
            _unfound(f"SSL handshake failed: /m.sock:  {TAIL}", _unknown("/m.sock", None, "")),
            "/m.sock did not answer within 5 s: SSL handshake failed: /m.sock",
        ),
        (_unfound(PRIMARY, SECONDARY), "no primary was found within 5 s"),
        (
            _unfound(PRIMARY, _unknown("a", 1, ""), SECONDARY),
            "no primary was found within 5 s; a:1 did not answer",
        ),
        (
            _unfound('No replica set members available for replica set name "shop"'),
            'no server of the URL is in the replica set "shop" that it names',
        ),
        (ServerSelectionTimeoutError("worded anew"), "worded anew"),
        (AutoReconnect(f"a:1: connection closed{TAIL}"), "a:1: connection closed"),
        (NetworkTimeout(f"a:1: timed out{TAIL}"), "a:1: timed out"),
        (
            NotPrimaryError("not primary", {"errmsg": "not primary", "code": 10107, "codeName": "NotWritablePrimary"}),
            "NotWritablePrimary: not primary",
        ),
    ],
)  # fmt: skip
def test_an_outage_is_told_in_a_short_sentence(error: PyMongoError, sentence: str) -> None:
    failure = translated(error, "mongodb://h")
    assert isinstance(failure, StoreUnavailable)
    assert failure.reason == sentence


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            _failed(18, "AuthenticationFailed", "Authentication failed."),
            StoreError,
            "store mongodb://h refused the credentials: AuthenticationFailed: Authentication failed; check user,"
            " password and authSource in the URL",
        ),
        (
            _failed(8000, "AtlasError", "bad auth : authentication failed"),
            StoreError,
            "store mongodb://h refused the credentials: AtlasError: bad auth : authentication failed; check user,"
            " password and authSource in the URL",
        ),
        (
            _failed(13, "Unauthorized", "Command find requires authentication"),
            StoreError,
            "store mongodb://h asks for credentials: Unauthorized: Command find requires authentication; give a user"
            " and a password in the URL",
        ),
        (
            _failed(13, "Unauthorized", UNAUTHORIZED),
            StoreError,
            "store mongodb://h does not let this user do what is needed: Unauthorized: not authorized on db to execute"
            " insert; give it the role readWrite on the database",
        ),
        (
            BulkWriteError({"writeErrors": [{"code": 2, "errmsg": "bad value", "op": {"payload": "hunter2"}}]}),
            StoreError,
            "store mongodb://h: bad value",
        ),
        (
            ConfigurationError("A password is required"),
            StoreRefused,
            "mongodb://h cannot be used with the options of its URL: A password is required",
        ),
        (
            ConfigurationError(
                "Server at h:1 reports wire version 8, but this version of PyMongo requires at least 9 (MongoDB 4.4)."
            ),
            StoreRefused,
            "mongodb://h must not be used as it is: the MongoDB at h:1 is too old: use 5.0 or later",
        ),
        (
            ConfigurationError(
                "Server at h:1 requires wire version 99, but this version of PyMongo only supports up to 29."
            ),
            StoreRefused,
            "mongodb://h is too new for the driver that is installed here: update pymongo",
        ),
    ],
)
def test_a_fault_is_told_with_what_to_change_and_without_what_was_written(
    error: PyMongoError, kind: type[MetadataError], sentence: str
) -> None:
    failure = translated(error, "mongodb://h")
    assert type(failure) is kind
    assert str(failure) == sentence
