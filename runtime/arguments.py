"""A task's arguments: written by the producer, checked against the function's type hints, handed to the function.

encode_arguments     Python values -> the JSON of `args` and `kwargs`
Signature.bind       decoded JSON -> what the function is called with

SignatureInvalid     a function whose arguments cannot be checked; raised where the task is declared
ArgumentsInvalid     arguments that the function does not take: names the path, shows the value, says why
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Union, Unpack, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import SchemaError

from .errors import ConfigurationError, InvalidJob
from .json_value import NotJson, encode_json, path_segment, shown
from .quick_arguments import quick_check

UNHINTED = "ctx"  # what the parameter for the context is called in code without type hints


class SignatureInvalid(ConfigurationError):
    def __init__(self, *, function: str, parameter: str | None, reason: str) -> None:
        where = f"{function}, parameter {parameter!r}" if parameter else function
        super().__init__(f"{where}: {reason}")
        self.function = function
        self.parameter = parameter
        self.reason = reason


class ArgumentsInvalid(InvalidJob):
    """`value` is what stood at `path`, as a repr of at most 200 characters; None where something is missing."""

    def __init__(self, *, path: str, reason: str, value: str | None = None) -> None:
        super().__init__(f"{path}: {reason}" if value is None else f"{path}: {reason}, got {value}")
        self.path = path
        self.reason = reason
        self.value = value


def encode_arguments(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[bytes, bytes]:
    """The JSON of both. Raises ArgumentsInvalid for what would not come back equal (see json_value.py)."""
    try:
        return encode_json(list(args), "args"), encode_json(dict(kwargs), "kwargs")
    except NotJson as error:
        raise ArgumentsInvalid(path=error.path, reason=error.reason) from error


class Bound(Struct, frozen=True):
    """Checked arguments. `call_with` adds the injected one, if the function asks for it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    injected: str | None = None
    position: int | None = None

    def call_with(self, context: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.injected is None:
            return self.args, self.kwargs
        if self.position is None:
            return self.args, {**self.kwargs, self.injected: context}
        return (*self.args[: self.position], context, *self.args[self.position :]), self.kwargs


class Signature:
    """What a function takes, made once for each task.

    Scalars are checked strictly ("1" is not an int); dates, UUIDs, decimals, enums, bytes (base64), sets, pydantic
    models, dataclasses and typed dicts come from their JSON forms. Parameters without a hint take anything. One
    parameter hinted with `injected`, or called `ctx` without a hint, is left to the worker; it cannot be sent.

    Raises SignatureInvalid for hints that cannot be resolved, have no JSON form, or would import or run what a message
    names.
    """

    def __init__(self, function: Callable[..., Any], *, injected: type | None = None) -> None:
        inner = inspect.unwrap(function)
        if not inspect.isroutine(inner):
            raise SignatureInvalid(function=repr(function)[:200], parameter=None, reason="is not a function")
        self.name = f"{inner.__module__}.{inner.__qualname__}"
        hints = _hints(function, self.name)
        parameters = list(inspect.signature(function).parameters.values())
        self.injected = self._injected(parameters, hints, injected)
        plain = [one for one in parameters if one.name != self.injected]
        self._order = parameters
        self._positional = [p for p in plain if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
        self._by_name = {p.name for p in plain if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)}
        self._var_args = next((p.name for p in plain if p.kind is Parameter.VAR_POSITIONAL), None)
        self._var_kwargs = next((p.name for p in plain if p.kind is Parameter.VAR_KEYWORD), None)
        variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        self._required = [p for p in plain if p.default is Parameter.empty and p.kind not in variable]
        self._fields, self._model = _validator(self.name, plain, hints)
        self.quick = quick_check(plain, hints, _CONFIG)
        named = any(one.name == self.injected and one.kind is Parameter.KEYWORD_ONLY for one in parameters)
        self._position = (
            None if named or self.injected is None else [one.name for one in parameters].index(self.injected)
        )

    def bind_json(self, args: bytes, kwargs: bytes) -> Bound:
        """`bind` of what `encode_arguments` wrote, mostly in one step. Raises msgspec.DecodeError for what is no JSON,
        and as `bind` does."""
        if self.quick is not None and kwargs == b"{}":
            checked = self.quick(args)
            if checked is not None:
                return Bound(checked, {}, self.injected, self._position)
        return self.bind(_decode_args(args), _decode_kwargs(kwargs))

    def bind(self, args: list[Any], kwargs: dict[str, Any]) -> Bound:
        """What to call the function with. `args` and `kwargs` are decoded JSON and are not changed.

        Raises ArgumentsInvalid for the first argument that is unknown, missing, given twice or not of its type.
        Defaults are left to the function.
        """
        values, places = self._place(args, kwargs)
        if self._model is not None:
            self._validate(self._model, values, places)
        return self._assemble(values)

    def _injected(self, parameters: list[Parameter], hints: dict[str, Any], injected: type | None) -> str | None:
        if injected is None:
            return None
        names = [one.name for one in parameters if _asks_for(hints.get(one.name), injected)]
        if not names:
            names = [one.name for one in parameters if one.name == UNHINTED and one.annotation is Parameter.empty]
        for one in parameters:
            if one.name in names and one.kind not in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY):
                reason = f"a {injected.__name__} is filled in by name, so it can be neither positional-only nor starred"
                raise SignatureInvalid(function=self.name, parameter=one.name, reason=reason)
        if len(names) > 1:
            reason = f"only one parameter can be a {injected.__name__}"
            raise SignatureInvalid(function=self.name, parameter=names[1], reason=reason)
        return names[0] if names else None

    def _place(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Values by parameter, and the path that each came by."""
        values: dict[str, Any] = {}
        places: dict[str, str] = {}
        count = len(self._positional)
        for index, (parameter, value) in enumerate(zip(self._positional, args, strict=False)):
            values[parameter.name] = value
            places[parameter.name] = f"args[{index}]"
        if len(args) > count:
            if self._var_args is None:
                reason = f"takes {count} positional argument{'' if count == 1 else 's'}, {len(args)} were given"
                raise ArgumentsInvalid(path=f"args[{count}]", reason=reason, value=shown(args[count]))
            values[self._var_args] = args[count:]
        extra: dict[str, Any] = {}
        for name, value in kwargs.items():
            path = f"kwargs{path_segment(name)}"
            if name == self.injected:
                raise ArgumentsInvalid(path=path, reason="is filled in by the worker and cannot be sent")
            if name not in self._by_name:
                if self._var_kwargs is None:
                    raise ArgumentsInvalid(path=path, reason="is not a parameter of the task", value=shown(value))
                extra[name] = value
            elif name in values:
                raise ArgumentsInvalid(path=path, reason=f"is given twice, also as {places[name]}", value=shown(value))
            else:
                values[name] = value
                places[name] = path
        if extra and self._var_kwargs is not None:
            values[self._var_kwargs] = extra
        for parameter in self._required:
            if parameter.name not in values:
                by_position = parameter.kind is Parameter.POSITIONAL_ONLY
                path = f"args[{len(args)}]" if by_position else f"kwargs.{parameter.name}"
                raise ArgumentsInvalid(path=path, reason=f"the argument {parameter.name!r} is missing")
        return values, places

    def _validate(self, model: type[BaseModel], values: dict[str, Any], places: dict[str, str]) -> None:
        given = {field: values[name] for field, name in self._fields.items() if name in values}
        if not given:
            return
        try:
            # JSON once more, for pydantic takes a date from a string only where it knows that the string was JSON.
            checked = model.model_validate_json(_encode(given))
        except ValidationError as error:
            raise self._explained(error, places) from None
        for field in given:
            values[self._fields[field]] = checked.__dict__[field]

    def _explained(self, error: ValidationError, places: dict[str, str]) -> ArgumentsInvalid:
        first = error.errors(include_url=False, include_context=False)[0]
        field, *rest = first["loc"]
        name = self._fields[str(field)]
        if name == self._var_args:
            place = "args"
            if rest and isinstance(rest[0], int):
                rest[0] += len(self._positional)
        else:
            place = "kwargs" if name == self._var_kwargs else places[name]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        path = place + "".join(map(path_segment, rest))
        return ArgumentsInvalid(path=path, reason=first["msg"] + more, value=shown(first["input"]))

    def _assemble(self, values: dict[str, Any]) -> Bound:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        position: int | None = None
        by_name = False  # after a parameter that is left to its default, the following can only be passed by name
        for parameter in self._order:
            name = parameter.name
            match parameter.kind:
                case Parameter.VAR_POSITIONAL:
                    args.extend(values.get(name, ()))
                case Parameter.VAR_KEYWORD:
                    kwargs.update(values.get(name, {}))
                case Parameter.KEYWORD_ONLY:
                    if name in values:
                        kwargs[name] = values[name]
                case _ if name == self.injected:
                    position = None if by_name else len(args)
                case _ if name not in values:
                    by_name = True
                case _ if by_name:
                    kwargs[name] = values[name]
                case _:
                    args.append(values[name])
        return Bound(tuple(args), kwargs, self.injected, position)


_encode = msgspec.json.Encoder().encode
_decode_args = msgspec.json.Decoder(list[Any]).decode
_decode_kwargs = msgspec.json.Decoder(dict[str, Any]).decode

_CONFIG = ConfigDict(
    strict=True,
    val_json_bytes="base64",
    extra="forbid",
    arbitrary_types_allowed=False,
    populate_by_name=True,  # a hint may carry an alias of its own; the field is still called by our name
    allow_inf_nan=False,
)


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Resolved hints of the parameters. The hint of the result is nobody's business here and may be unresolvable."""
    inner = inspect.unwrap(function)
    hints: dict[str, Any] = {}
    for parameter, annotation in getattr(inner, "__annotations__", {}).items():
        if parameter == "return":
            continue
        holder = SimpleNamespace(
            __annotations__={parameter: annotation}, __type_params__=getattr(inner, "__type_params__", ())
        )
        try:
            found = get_type_hints(holder, globalns=getattr(inner, "__globals__", {}), include_extras=True)
        except (NameError, TypeError, SyntaxError, AttributeError) as error:
            reason = f"its type hint {annotation!r:.200} cannot be resolved ({error}); import it in the module"
            raise SignatureInvalid(function=name, parameter=parameter, reason=reason) from error
        hints.update(found)
    return hints


def _asks_for(hint: Any, injected: type) -> bool:
    origin = get_origin(hint)
    if origin is Annotated:
        return _asks_for(get_args(hint)[0], injected)
    if origin in (Union, UnionType):
        return any(_asks_for(one, injected) for one in get_args(hint) if one is not NoneType)
    kind = hint if origin is None else origin
    return isinstance(kind, type) and issubclass(kind, injected)


def _validator(
    function: str, parameters: list[Parameter], hints: dict[str, Any]
) -> tuple[dict[str, str], type[BaseModel] | None]:
    """Field names of the model (numbers, so that no parameter's name meets a method of BaseModel), and the model, or
    None where nothing is to be checked."""
    typed: dict[str, Any] = {}
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        if hint is Any or hint is object:
            continue
        if parameter.kind is Parameter.VAR_POSITIONAL:
            hint = list[hint]  # type: ignore[valid-type]
        elif parameter.kind is Parameter.VAR_KEYWORD:
            hint = get_args(hint)[0] if get_origin(hint) is Unpack else dict[str, hint]  # type: ignore[valid-type]
        typed[parameter.name] = hint
    if not typed:
        return {}, None
    fields = {f"p{index}": name for index, name in enumerate(typed)}
    fault, model = _model({field: typed[name] for field, name in fields.items()})
    if model is None:
        for name, hint in typed.items():
            alone, _ = _model({"p0": hint})
            if alone is not None:
                raise SignatureInvalid(function=function, parameter=name, reason=alone)
        raise SignatureInvalid(function=function, parameter=None, reason=fault or "its hints cannot be checked")
    return fields, model


def _model(hints: dict[str, Any]) -> tuple[str | None, type[BaseModel] | None]:
    fields: dict[str, Any] = {field: (hint, None) for field, hint in hints.items()}
    try:
        model = create_model("Arguments", __config__=_CONFIG, **fields)
    except (PydanticUserError, PydanticUndefinedAnnotation, SchemaError, TypeError) as error:
        return f"no JSON can be checked against its type hint: {str(error).splitlines()[0]}", None
    if not model.__pydantic_complete__:
        return "its type hint names a class that is not fully defined yet", None
    fault = _forbidden(model.__pydantic_core_schema__)
    return (fault, None) if fault else (None, model)


_UNREACHABLE = {
    "callable": "a callable cannot be sent as JSON, and is never looked up by name",
    "is-subclass": "a class cannot be sent as JSON, and is never looked up by name",
    "is-instance": "an instance of an arbitrary class cannot be sent as JSON",
}
# `serialization` and `metadata` describe the way out; `python_schema` is the branch that JSON never takes.
_NOT_TAKEN = {"serialization", "metadata", "python_schema", "config", "default"}


def _forbidden(schema: Any, *, within_union: bool = False) -> str | None:
    """Why a core schema of pydantic must not meet a message: it would import what that names, or can never match."""
    if isinstance(schema, list | tuple):
        found = (_forbidden(one, within_union=within_union) for one in schema)
        return next((fault for fault in found if fault), None)
    if not isinstance(schema, Mapping):
        return None
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _UNREACHABLE and not within_union:
        return _UNREACHABLE[kind]
    function = schema.get("function")
    if inspect.isroutine(function) and function.__name__ == "import_string":
        return "an ImportString would import whatever a message names"
    within_union = within_union or kind == "union"
    members = [value for key, value in schema.items() if key not in _NOT_TAKEN]
    return _forbidden(members, within_union=within_union)
