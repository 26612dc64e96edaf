"""Results and errors as bytes."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import msgspec
import pytest

from callboard.runtime.results import (
    MAX_MESSAGE_BYTES,
    MAX_TRACEBACK_BYTES,
    ErrorInfo,
    ResultInvalid,
    ResultTooLarge,
    decode_error,
    decode_result,
    describe_error,
    encode_error,
    encode_result,
)

LIMIT = 1_000_000


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    secret_local = "hunter2-in-a-local"
    try:
        assert secret_local
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("value", [None, [], {}, "", 0, 0.1, [None, {"a": [None]}], 2**63, {"ключ": "日本"}])
def test_a_result_comes_back_equal(value: Any) -> None:
    assert decode_result(encode_result(value, LIMIT)) == value


def test_a_result_beyond_the_limit_is_refused_with_both_sizes() -> None:
    with pytest.raises(ResultTooLarge, match="12 bytes, the limit is 11") as caught:
        encode_result("x" * 10, 11)
    assert (caught.value.size, caught.value.limit) == (12, 11)
    assert encode_result("x" * 10, 12) == b'"xxxxxxxxxx"'


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        (object(), "result", "builtins.object"),
        ({"rows": [1, {"at": object()}]}, "result.rows[1].at", "builtins.object"),
        ([math.nan], "result[0]", "nan"),
        ({1: 2}, "result", "key 1 is a int"),
        (lambda: None, "result", "function"),
    ],
)
def test_a_result_that_is_not_json_is_refused_with_its_path_and_type(value: Any, path: str, words: str) -> None:
    with pytest.raises(ResultInvalid, match=words) as caught:
        encode_result(value, LIMIT)
    assert caught.value.path == path


def test_an_error_is_told_with_its_type_message_and_traceback() -> None:
    info = describe_error(raised(ValueError("no such address")))
    assert (info.type, info.message) == ("ValueError", "no such address")
    assert "Traceback (most recent call last)" in info.traceback
    assert "in raised" in info.traceback
    assert info.traceback.endswith("ValueError: no such address\n")


def test_an_error_comes_back_from_its_bytes() -> None:
    info = describe_error(raised(ValueError("日本")))
    assert decode_error(encode_error(info)) == info
    assert isinstance(info, ErrorInfo)


def test_bytes_that_are_no_error_are_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_error(b'{"type": 1}')


def test_causes_are_told_before_what_they_caused() -> None:
    text = describe_error(raised(RuntimeError("upload failed"), raised(OSError("disk is full")))).traceback
    assert text.index("disk is full") < text.index("direct cause") < text.index("upload failed")


def test_the_context_of_an_error_is_told_too() -> None:
    def during() -> NoReturn:
        try:
            raise KeyError("first")
        except KeyError:
            raise RuntimeError("second")  # noqa: B904

    with pytest.raises(RuntimeError) as caught:
        during()
    text = describe_error(caught.value).traceback
    assert text.index("first") < text.index("During handling") < text.index("second")


def test_the_values_of_variables_are_not_told() -> None:
    assert describe_error(raised(ValueError("x"))).traceback.count("hunter2-in-a-local") == 0


def test_a_chain_of_causes_that_runs_in_a_circle_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert describe_error(first).traceback.count("first") == 1


def test_a_long_chain_of_causes_is_cut_and_says_so() -> None:
    error: BaseException = ValueError("0")
    for number in range(1, 100):
        error = raised(ValueError(str(number)), error)
    assert "further causes are left out" in describe_error(error).traceback


def test_a_deep_recursion_is_told_within_the_limit() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    info = describe_error(caught.value)
    assert len(info.traceback.encode()) <= MAX_TRACEBACK_BYTES
    assert info.traceback.endswith("maximum recursion depth exceeded\n")


def test_a_message_of_ten_megabytes_is_cut_between_characters() -> None:
    info = describe_error(raised(ValueError("日" * 3_500_000)))
    assert len(info.message.encode()) <= MAX_MESSAGE_BYTES
    assert info.message.endswith("... (10500000 bytes)")
    assert len(info.traceback.encode()) <= MAX_TRACEBACK_BYTES


def test_an_error_with_lone_surrogates_can_still_be_written() -> None:
    assert decode_error(encode_error(describe_error(raised(ValueError("\ud800"))))).message == "?"


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Mute(Silent):
    def __repr__(self) -> str:
        raise SystemExit(3)


class Liar(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307

    def __repr__(self) -> str:
        return "R" * 10_000_000


class Disguise(str):
    def __getitem__(self, key: Any) -> NoReturn:
        raise RuntimeError("hands off")

    def encode(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("hands off")


class Masked(Exception):
    def __str__(self) -> str:
        return Disguise("masked")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Silent(), "Silent()"),
        (Mute(), "whose __str__ and __repr__ fail"),
        (Liar(), "RRRR"),
        (Masked(), "masked"),
    ],
)
def test_a_hostile_error_is_described_all_the_same(error: BaseException, message: str) -> None:
    info = describe_error(raised(error))
    assert message in info.message
    assert len(info.message.encode()) <= MAX_MESSAGE_BYTES
    assert type(error).__qualname__ in info.type
    assert decode_error(encode_error(info)) == info


def test_the_errors_of_a_group_are_listed() -> None:
    info = describe_error(raised(ExceptionGroup("both", [ValueError("left"), OSError("right")])))
    assert "ValueError: left" in info.traceback
    assert "OSError: right" in info.traceback
