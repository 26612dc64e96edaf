"""The short way from a task's positional arguments in JSON to checked values: one call of pydantic's compiled core.

It takes what the usual call sends, all positional parameters and nothing else, and says no to everything it does not
take; then the long way (`arguments.py`) decides, which also knows how to say what is wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import SchemaError

Quick = Callable[[bytes], tuple[Any, ...] | None]


def quick_check(parameters: Sequence[Parameter], hints: dict[str, Any], config: ConfigDict) -> Quick | None:
    """For the parameters that may be sent, in their order. None: they do not allow it."""
    kinds = {one.kind for one in parameters}
    if not parameters or not kinds <= {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}:
        return None
    types = tuple(hints.get(one.name, Any) for one in parameters)
    if Any in types or object in types:
        return None  # pydantic's parser of JSON and ours may differ in what nobody checks
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as an alias, which means nothing here
            validate = TypeAdapter[tuple[Any, ...]](tuple[types], config=config).validator.validate_json  # type: ignore[valid-type]
    except (Warning, PydanticUserError, PydanticUndefinedAnnotation, SchemaError, TypeError):
        return None

    def check(args: bytes) -> tuple[Any, ...] | None:
        try:
            checked: tuple[Any, ...] = validate(args)
        except ValidationError:
            return None
        return checked

    return check
