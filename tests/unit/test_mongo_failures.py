"""Which of the driver's errors are worth a repeat."""

from __future__ import annotations

from pymongo.errors import AutoReconnect, OperationFailure

from callboard.metadata.errors import StoreUnavailable
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
