from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from callboard.runtime.strict_json import JsonLimits, JsonRefused, cut_up, pointer, read

LIMITS = JsonLimits(size=1024 * 1024, depth=8, values=100, string=1000)


def refused(body: bytes, limits: JsonLimits = LIMITS) -> tuple[str, str]:
    with pytest.raises(JsonRefused) as error:
        read(body, limits)
    return error.value.refusal.code, error.value.refusal.message


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"x" * (1024 * 1024 + 1), "too-large", "the body takes 1048577 bytes, the limit is 1048576"),
        (b'{"a": "\xff"}', "not-utf-8", "byte 7 is 0xff"),
        (b'"\xed\xa0\x80"', "not-utf-8", "byte 1"),
        (b"", "not-json", "the end"),
        (b"nope", "not-json", "character 0, before 'nope'"),
        (b'{"a": 1', "not-json", "the end"),
        (b'{"a": "\x00"}', "not-json", "control character"),
        (b"\xef\xbb\xbf{}", "not-json", "character 0"),
        (b"[NaN]", "not-json", "NaN is no JSON number"),
        (b"[-Infinity]", "not-json", "-Infinity is no JSON number"),
        (b"[1] 2", "not-json", "Extra data"),
        (b"[" * 9 + b"]" * 9, "too-deep", "nested 9 levels deep, the limit is 8"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "too-deep", "the limit is 8"),
        (b"[" + b"1," * 200 + b"1]", "too-many-values", "101 values, the limit is 100"),
        (b"[" + b"[]," * 200 + b"1]", "too-many-values", "the limit is 100"),
        (b'{"a": "' + b"x" * 1001 + b'"}', "string-too-long", "at byte 6 takes 1001 bytes, the limit is 1000"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_value_and_the_limit(body: bytes, code: str, message: str) -> None:
    found, said = refused(body)
    assert found == code
    assert message in said


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        (b'{"a": {"b": 1, "b": 2}}', "duplicate-member", "/a/b"),
        (b'[1, {"a": 18446744073709551616}]', "number-too-large", "/1/a"),
        (b'{"a": -9223372036854775809}', "number-too-large", "/a"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "number-too-large", "/a"),
        (b'{"a/b~c": 1e400}', "number-too-large", "/a~1b~0c"),
        (b'{"a": [0, "\\ud800"]}', "lone-surrogate", "/a/1"),
        (b'{"\\udfff": 1}', "lone-surrogate", ""),
    ],
)
def test_of_a_single_value_at_fault_the_place_is_told(body: bytes, code: str, path: str) -> None:
    document = read(body, LIMITS)
    refusal = document.fault(document.value)
    assert refusal is not None
    assert (refusal.code, refusal.path) == (code, path)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "text"], "b": {"c": -(2**63), "d": 2**64 - 1}},
        "\U0001f600 \u20ac \x00",
        [1e308, -1e-308, 0.1],
        '"quoted" \\ [ { , ] }',
        {"19 digits": 1234567890123456789},
    ],
)
def test_what_is_good_comes_out_as_it_was(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).replace("\x00", "\\u0000")):
        document = read(text.encode(), LIMITS)
        assert document.value == value
        assert document.fault(document.value) is None


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        (b"[]", []),
        (b' [ 1 , "a,]" , {"b": [2]}, "\\ud800" ] ', [b"1", b'"a,]"', b'{"b": [2]}', b'"\\ud800"']),
        (b'[{"a":1,"a":2},' + b"9" * 5000 + b',"\xc3\xa9"]', [b'{"a":1,"a":2}', b"9" * 5000, b'"\xc3\xa9"']),
    ],
)
def test_an_array_is_cut_into_its_elements_also_where_some_are_at_fault(body: bytes, elements: list[bytes]) -> None:
    assert read(body, JsonLimits()).value is not None
    assert cut_up(body) == elements


def test_limits_are_exact() -> None:
    assert read(b"[" * 8 + b"]" * 8, LIMITS).value
    assert len(read(b"[" + b"1," * 97 + b"1]", LIMITS).value) == 98
    assert len(read(b'"' + b"x" * 1000 + b'"', LIMITS).value) == 1000


def test_brackets_and_commas_in_strings_are_not_counted() -> None:
    text = "[{," * 300
    assert read(json.dumps([text]).encode(), LIMITS).value == [text]


@pytest.mark.parametrize(
    "body",
    [
        b"[]," * 300_000,
        b"[" * 1_000_000,
        b'"' * 1_000_000,
        b'"' + b'\\"' * 500_000,
        b"\\" * 1_000_000,
        b'{"a":' * 150_000,
        b"1" * 1_000_000,
        b"1e" + b"9" * 1_000_000,
        b'"' + b"\\ud800" * 170_000,
        b" " * 1_000_000,
    ],
    ids=range(10),
)
def test_a_bomb_costs_little_time_and_memory(body: bytes) -> None:
    tracemalloc.start()
    began = time.process_time()
    document_or_refusal: object
    try:
        document = read(body, JsonLimits())
        document_or_refusal = document.fault(document.value)
    except JsonRefused as error:
        document_or_refusal = error.refusal
    seconds = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert document_or_refusal is not None
    assert seconds < 1.0  # with every allocation traced
    assert peak < 8 * 1024 * 1024


def test_a_pointer_is_escaped_and_cut() -> None:
    assert pointer("a/b", 3, "c~d") == "/a~1b/3/c~0d"
    assert len(pointer("x" * 1000)) == 200
