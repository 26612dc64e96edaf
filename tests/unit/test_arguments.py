"""Arguments from the producer's values to the function's call."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ImportString, computed_field
from typing_extensions import TypedDict

from callboard.runtime.arguments import ArgumentsInvalid, Signature, SignatureInvalid, encode_arguments
from callboard.runtime.errors import ConfigurationError, InvalidJob


class Context:
    pass


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    label: bytes = b""


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")
    street: str
    number: int = Field(alias="no")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def line(self) -> str:
        return f"{self.street} {self.number}"


class Options(TypedDict, total=False):
    retries: int


class Hidden:
    pass


class Importing(BaseModel):
    target: ImportString[Any]


def sent(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the function is called with after the arguments went over the wire: the same by the short way, where there
    is one, as by the long way."""
    first, second = encode_arguments(args, kwargs)
    signature = Signature(function, injected=Context)
    bound = signature.bind(msgspec.json.decode(first), msgspec.json.decode(second)).call_with("the context")
    assert repr(signature.bind_json(first, second).call_with("the context")) == repr(bound)
    return bound


def refused(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> ArgumentsInvalid:
    signature = Signature(function, injected=Context)
    with pytest.raises(ArgumentsInvalid) as caught:
        signature.bind(args, kwargs)
    with pytest.raises(ArgumentsInvalid) as quick:
        signature.bind_json(msgspec.json.encode(args), msgspec.json.encode(kwargs))
    assert str(quick.value) == str(caught.value)
    assert isinstance(caught.value, InvalidJob)
    return caught.value


def anything(*args: Any, **kwargs: Any) -> None: ...


VALUES = [
    [], {}, "", None, True, False, 0, -1, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**300, 0.1, 1e308, 5e-324, -0.0,
    1e22, "\x00", "日本 🎭", [[]], [{}], {"": None}, {"a": [None, {"b": None}]}, "1", "null", [1, "1", 1.0],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_a_json_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    args, kwargs = sent(anything, value, name=value)
    assert args == (value,)
    assert kwargs == {"name": value}
    assert repr(args[0]) == repr(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_every_json_value_comes_back_equal(value: Any) -> None:
    assert repr(sent(anything, value)[0]) == repr((value,))


def everything(
    moment: datetime, day: date, gap: timedelta, key: UUID, price: Decimal, colour: Colour, blob: bytes, path: Path,
    point: Point, address: Address, tags: set[str], pair: tuple[int, str], options: Options, maybe: int | None,
) -> None: ...  # fmt: skip


def test_values_that_are_not_json_come_back_through_the_type_hints() -> None:
    given = {
        "moment": datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=UTC),
        "day": date(2024, 2, 29),
        "gap": timedelta(days=3, microseconds=1),
        "key": UUID(int=7),
        "price": Decimal("1.10"),
        "colour": Colour.BLUE,
        "blob": b"\x00\xff\xfe",
        "path": Path("/tmp/x"),
        "point": Point(1, b"\xff"),
        "address": Address(street="Main", no=5),
        "tags": {"a", "b"},
        "pair": (1, "x"),
        "options": {"retries": 3},
        "maybe": None,
    }
    args, kwargs = sent(everything, **given)
    assert args == tuple(given.values())
    assert kwargs == {}


def test_sets_are_written_in_the_same_order_whatever_the_hash_seed() -> None:
    assert encode_arguments([{"b", "a", "c"}, {10, 9}], {})[0] == b'[["a","b","c"],[10,9]]'


def test_subclasses_of_json_types_travel_as_those() -> None:
    number = type("Number", (int,), {})(5)
    text = type("Text", (str,), {})("x")
    level = enum.IntEnum("Level", {"HIGH": 3}).HIGH
    assert encode_arguments([number, text, level, {text: 1.5}], {}) == (b'[5,"x",3,{"x":1.5}]', b"{}")


def cycle() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("args", "kwargs", "path", "words"),
    [
        ([math.nan], {}, "args[0]", "nan"),
        ([1, [2, math.inf]], {}, "args[1][1]", "inf"),
        ([Decimal("NaN")], {}, "args[0]", "NaN"),
        ([], {"a": {"b c": [object()]}}, "kwargs.a['b c'][0]", "builtins.object"),
        ([{1: 2}], {}, "args[0]", "key 1 is a int"),
        ([{None: 2}], {}, "args[0]", "string keys"),
        ([{(1, 2): 2}], {}, "args[0]", "string keys"),
        (["\ud800"], {}, "args[0]", "surrogate"),
        ([{"\ud800": 1}], {}, "args[0]", "surrogate"),
        ([10**5000], {}, "args[0]", "bits"),
        ([cycle()], {}, "args[0]", "contains itself"),
        ([1j], {}, "args[0]", "complex"),
        ([Point], {}, "args[0]", "type"),
        ([Point(math.nan)], {}, "args[0].x", "nan"),  # type: ignore[arg-type]
        ([Address.model_construct(street="x", number=math.inf)], {}, "args[0]", "the model Address cannot be dumped"),
        ([{frozenset({object()})}], {}, "args[0]", "object"),
    ],
)
def test_what_would_not_come_back_equal_is_refused_with_its_path(
    args: list[Any], kwargs: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(ArgumentsInvalid) as caught:
        encode_arguments(args, kwargs)
    assert words in str(caught.value)
    assert caught.value.path.startswith(path)


def mail(to: str, *, subject: str = "hi", copies: list[int] | None = None, when: datetime | None = None) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "path", "words"),
    [
        ([1], {}, "args[0]", "string, got 1"),
        (["a", "b"], {}, "args[1]", "takes 1 positional argument, 2 were given, got 'b'"),
        ([], {}, "kwargs.to", "missing"),
        ([], {"subject": "x"}, "kwargs.to", "missing"),
        (["a"], {"to": "b"}, "kwargs.to", "twice, also as args[0]"),
        (["a"], {"subjekt": "b"}, "kwargs.subjekt", "not a parameter of the task, got 'b'"),
        (["a"], {"not a name": 1}, "kwargs['not a name']", "not a parameter"),
        (["a"], {"subject": None}, "kwargs.subject", "string, got None"),
        (["a"], {"copies": [1, "2"]}, "kwargs.copies[1]", "integer, got '2'"),
        (["a"], {"copies": [1.5]}, "kwargs.copies[0]", "integer"),
        (["a"], {"copies": [True]}, "kwargs.copies[0]", "integer"),
        (["a"], {"when": 5}, "kwargs.when", "datetime"),
        (["a"], {"when": "yesterday"}, "kwargs.when", "datetime"),
        ([5], {"subject": 6}, "args[0]", "(and 1 more)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_path_value_and_reason(
    args: list[Any], kwargs: dict[str, Any], path: str, words: str
) -> None:
    error = refused(mail, args, kwargs)
    assert error.path == path
    assert words in str(error)


def test_the_value_of_a_refusal_is_shown_in_at_most_200_characters() -> None:
    assert len(refused(mail, ["a"], {"copies": "x" * 1_000_000}).value or "") <= 200
    assert len(refused(mail, ["a"], {"subject": [list(range(1000))] * 1000}).value or "") <= 200
    assert len(refused(mail, ["a"], {"subject": 10**4000}).value or "") <= 200


def test_an_int_that_is_a_string_is_not_taken_but_an_int_for_a_float_is() -> None:
    def scale(factor: float) -> None: ...

    assert sent(scale, 2) == ((2.0,), {})
    assert refused(scale, ["2"], {}).path == "args[0]"


def kinds(first: int, /, second: int = 2, *rest: int, named: int, **more: int) -> None: ...


def test_every_kind_of_parameter_is_honoured() -> None:
    assert sent(kinds, 1, named=4) == ((1,), {"named": 4})
    assert sent(kinds, 1, second=3, named=4, other=5) == ((1, 3), {"named": 4, "other": 5})
    assert sent(kinds, 1, 2, 3, 4, named=4) == ((1, 2, 3, 4), {"named": 4})
    assert sent(kinds, 1, named=4, first=9) == ((1,), {"named": 4, "first": 9})


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ([1, 2, 3, "4"], {"named": 4}, "args[3]"),
        ([1, "2"], {"named": 4}, "args[1]"),
        ([1], {"named": 4, "other": "x"}, "kwargs.other"),
        ([], {"named": 4, "first": 1}, "args[0]"),
        ([1], {}, "kwargs.named"),
    ],
)
def test_starred_and_positional_arguments_are_checked_at_their_places(
    args: list[Any], kwargs: dict[str, Any], path: str
) -> None:
    assert refused(kinds, args, kwargs).path == path


def test_defaults_are_left_to_the_function() -> None:
    assert sent(mail, "a") == (("a",), {})


def test_the_context_is_filled_in_wherever_it_stands() -> None:
    def first(ctx: Context, a: int, b: int = 2) -> None: ...
    def middle(a: int, ctx: Context, b: int = 2) -> None: ...
    def late(a: int = 1, ctx: Context | None = None, *, b: int = 2) -> None: ...
    def named(*rest: int, ctx: Annotated[Context, "filled in"]) -> None: ...

    assert sent(first, 1, 5) == (("the context", 1, 5), {})
    assert sent(middle, 1) == ((1, "the context"), {})
    assert sent(late) == ((), {"ctx": "the context"})
    assert sent(late, 1, b=3) == ((1, "the context"), {"b": 3})
    assert sent(named, 1, 2) == ((1, 2), {"ctx": "the context"})


def test_the_context_cannot_be_sent() -> None:
    def task(ctx: Context, **more: Any) -> None: ...

    error = refused(task, [], {"ctx": 1})
    assert error.path == "kwargs.ctx"


def test_a_parameter_called_ctx_without_a_hint_is_filled_in_too() -> None:
    assert sent(lambda ctx, a: None, 1) == (("the context", 1), {})
    assert refused(lambda ctx: None, [], {"ctx": 1}).path == "kwargs.ctx"

    def other(run: Context, ctx: int) -> None: ...

    assert sent(other, 1) == (("the context", 1), {})


def test_parameters_without_hints_take_anything_and_need_no_validator() -> None:
    def task(a, b=None, *, c: Any = 1):  # type: ignore[no-untyped-def]
        return None

    deep = {"a": [1, "2", {"c": None}]}
    assert sent(task, deep, c=deep) == ((deep,), {"c": deep})
    assert Signature(task)._model is None


def test_an_alias_in_a_hint_does_not_rename_the_parameter() -> None:
    def task(size: Annotated[int, Field(alias="groesse", gt=0)]) -> None: ...

    assert sent(task, size=3) == ((3,), {})
    assert refused(task, [0], {}).path == "args[0]"


def test_names_that_pydantic_reserves_are_names_like_any_other() -> None:
    def task(model_config: int, _private: int, schema: int, copy: int = 1) -> None: ...

    assert sent(task, 1, _private=2, schema=3) == ((1, 2, 3), {})


def test_a_model_keeps_its_own_rules() -> None:
    def task(address: Address) -> None: ...

    error = refused(task, [{"street": "Main", "no": 1, "zip": 5}], {})
    assert error.path == "args[0].zip"


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (ImportString, "import whatever a message names"),
        (ImportString | None, "import whatever a message names"),
        (list[Importing], "import whatever a message names"),
        (Callable, "callable"),
        (Callable[[int], int], "callable"),
        (type[int], "class cannot be sent"),
        (Hidden, "Hidden"),
        (dict[str, Hidden], "Hidden"),
        ("Nowhere", "Nowhere"),
        ("list[", "cannot be resolved"),
    ],
)
def test_a_hint_that_no_message_may_meet_is_refused_where_the_task_is_declared(hint: Any, words: str) -> None:
    def task(fine: int, value: Any) -> None: ...

    task.__annotations__["value"] = hint
    with pytest.raises(SignatureInvalid) as caught:
        Signature(task)
    assert caught.value.parameter == "value"
    assert words in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_a_result_hint_that_cannot_be_resolved_does_not_matter() -> None:
    def task(a: int) -> None: ...

    task.__annotations__["return"] = "Nowhere"
    assert sent(task, 1) == ((1,), {})


def test_two_contexts_or_a_positional_only_one_are_refused() -> None:
    def twice(a: Context, b: Context) -> None: ...
    def only(a: Context, /) -> None: ...
    def starred(*a: Context) -> None: ...

    for function in (twice, only, starred):
        with pytest.raises(SignatureInvalid):
            Signature(function, injected=Context)


def test_what_is_not_a_function_is_refused() -> None:
    with pytest.raises(SignatureInvalid, match="is not a function"):
        Signature(5)  # type: ignore[arg-type]


NAMES = st.sampled_from(["first", "second", "rest", "named", "x"])


@given(args=st.lists(st.integers() | JSON, max_size=3), kwargs=st.dictionaries(NAMES, st.integers() | JSON))
def test_what_is_bound_can_be_called_and_nothing_else_than_a_refusal_comes_out(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    try:
        bound = Signature(kinds).bind(args, kwargs)
    except ArgumentsInvalid:
        return
    call_args, call_kwargs = bound.call_with(None)
    inspect.signature(kinds).bind(*call_args, **call_kwargs)
    assert list(call_args)[: len(args)] == args


def test_positional_arguments_that_are_all_there_take_the_short_way() -> None:
    def dated(day: date, amounts: set[int], ctx: Context, name: str) -> None: ...

    signature = Signature(dated, injected=Context)
    assert signature.quick is not None
    assert signature.quick(b'["2026-03-01", [2, 1], "x"]') == (date(2026, 3, 1), {1, 2}, "x")
    assert signature.quick(b'["2026-03-01", [2, 1]]') is None
    assert signature.quick(b'["2026-03-01", ["2"], "x"]') is None
    assert sent(dated, date(2026, 3, 1), {1}, "x") == ((date(2026, 3, 1), {1}, "the context", "x"), {})


def test_the_context_as_a_keyword_is_filled_in_by_name_on_the_short_way_too() -> None:
    def last(name: str, *, ctx: Context) -> None: ...

    assert Signature(last, injected=Context).quick is not None
    assert sent(last, "x") == (("x",), {"ctx": "the context"})
