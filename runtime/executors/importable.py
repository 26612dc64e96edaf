"""Which functions a child process can find again: those at the top of a module, or in a class there, by their name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from .contract import TaskUnreachable


class Location(Struct, frozen=True):
    """Where a function is defined, read off the function object itself."""

    module: str
    qualname: str


def check_importable(function: Callable[..., Any]) -> Location:
    """Raises TaskUnreachable for lambdas, functions within functions, and functions typed at a prompt.

    For use where a task is declared, when the module's attribute is not yet there.
    """
    module, qualname = function.__module__, function.__qualname__
    name = f"{module}.{qualname}"
    if "<lambda>" in qualname:
        raise TaskUnreachable(name, "a lambda has no name to be found by; define it with def, in a module")
    if "<locals>" in qualname:
        raise TaskUnreachable(name, "it is defined within a function; move it to the top of the module")
    if module not in sys.modules:
        raise TaskUnreachable(name, "its module is not an imported one")
    if module == "__main__" and main_module() is None and main_path() is None:
        raise TaskUnreachable(name, "it was typed at a prompt or piped in; put it into a file")
    return Location(module, qualname)


def check_reachable(function: Callable[..., Any]) -> Location:
    """Raises TaskUnreachable also where the module's attribute is something else. For use once modules are loaded."""
    location = check_importable(function)
    found = find(sys.modules[location.module], location.qualname)
    if found is not function:
        reason = f"under that name the module holds {type(found).__name__}, not this function"
        raise TaskUnreachable(f"{location.module}.{location.qualname}", reason)
    return location


def find(module: object, qualname: str) -> object:
    """The function at `qualname` in a module, taken out of its Task; None where there is nothing."""
    found = module
    for part in qualname.split("."):
        if not hasattr(found, part):
            return None
        found = getattr(found, part)
    # By its attribute, not its class: a task's class brings the whole app along, which a child has no use for.
    while not hasattr(found, "__code__") and hasattr(found, "function"):
        found = found.function
    return found


def main_path() -> str | None:
    """The file that the interpreter was started with, if it is one."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return path if isinstance(path, str) else None


def main_module() -> str | None:
    """The importable name of the main module where the interpreter was started with -m."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else str(spec.name)
