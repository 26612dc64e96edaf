"""Which of a Redis server's errors are worth a repeat."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.redis.failures import translated


@pytest.mark.parametrize(
    "told", ["ERR max number of clients reached", "ERR max number of clients + cluster connections"]
)
def test_a_server_that_lets_nobody_else_in_is_unavailable(told: str) -> None:
    assert isinstance(translated(ResponseError(told), "redis://h"), StoreUnavailable)


def test_what_a_server_will_never_take_is_a_fault() -> None:
    told = "WRONGTYPE Operation against a key holding the wrong kind of value: ERR max number of clients"
    assert not isinstance(translated(ResponseError(told), "redis://h"), StoreUnavailable)
