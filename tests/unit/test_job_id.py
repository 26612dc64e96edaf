from __future__ import annotations

from typing import Any

import pytest

from callboard.runtime.errors import InvalidJob
from callboard.runtime.job_id import check_id, check_queue, check_task, new_id


def test_new_ids_are_hexadecimal_sort_by_time_and_never_meet() -> None:
    ids = [new_id(now) for now in (0, 1, 255, 256, 1_790_000_000_000, 2**48 - 1)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {32}
    assert all(int(one, 16) >= 0 for one in ids)
    assert len({new_id(0) for _ in range(10_000)}) == 10_000


REFUSED = ["", "0", "42", "٤٢", "a:b", ":", "a\tb", "\x7f", "\u200b", "x" * 257, "\udc80"]


@pytest.mark.parametrize("value", REFUSED, ids=repr)
def test_a_refused_id_is_named_with_its_value(value: str) -> None:
    with pytest.raises(InvalidJob, match="job_id"):
        check_id(value)
    with pytest.raises(InvalidJob, match="message_id"):
        check_id(value, member="message_id")


@pytest.mark.parametrize("value", [None, 1, 1.5, b"a", ["a"], True], ids=repr)
def test_an_id_that_is_no_string_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="job_id must be a string"):
        check_id(value)


@pytest.mark.parametrize("value", ["a", "a1", "1a", "a b", "ä" * 128, "-", "welcome-42", "{tag}"], ids=repr)
def test_other_text_is_accepted_as_it_is(value: str) -> None:
    assert check_id(value) == value


@pytest.mark.parametrize("value", ["", "a b", "a/b", "a*", "a#b", "ä", "a\n", "x" * 129, None, 5], ids=repr)
def test_a_refused_queue_name_is_named(value: Any) -> None:
    with pytest.raises(InvalidJob, match="queue must be 1 to 128 of the characters"):
        check_queue(value)


@pytest.mark.parametrize("value", ["", "a b", "a/b", "ä", "a\n", "x" * 201, None], ids=repr)
def test_a_refused_task_name_is_named(value: Any) -> None:
    with pytest.raises(InvalidJob, match="task must be a name of 1 to 200 of the characters"):
        check_task(value)


@pytest.mark.parametrize("value", ["__main__.f", "pkg.mod:Class.method", "outer.<locals>.inner", "a-b_c", "x" * 200])
def test_names_that_python_gives_to_functions_are_accepted(value: str) -> None:
    assert check_task(value) == value
