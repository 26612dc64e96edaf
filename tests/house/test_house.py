"""The house keeps its own rules: what may not be written in it, where things may stand, what it leans on."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import callboard
from callboard.metadata.job import State

ROOT = Path(__file__).parents[2]
FLOORS = ("actors", "brokers", "metadata", "runtime")
MODULES = sorted([*ROOT.glob("*.py"), *(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))])
MAX_LINES = 400
LONGER = {
    "metadata/contract.py": 565,  # one agreement, to be read as one: two thirds of it are its docstrings
    "runtime/testing/store_machine.py": 580,  # one state machine: its rules stand beside the state they share
}

# Each of them makes code, or objects of any class, out of bytes. multiprocessing does so with every argument it sends.
UNSAFE_MODULES = {
    *("cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "multiprocessing", "pickle", "_pickle", "shelve"),
    *("code", "codeop", "runpy", "yaml"),
}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_NAMES = {"ProcessPoolExecutor", "ImportString", "PyObject"}

# importlib.metadata and importlib.resources read; what else is in importlib turns a name into running code.
READING = {"importlib.metadata", "importlib.resources"}
IMPORTERS = {
    "runtime/registry.py": "--app and entry points: names from the command line, settings, installed packages",
    "runtime/executors/process_child.py": "the module of a function that the parent's app has registered",
}


def imports(tree: ast.AST) -> Iterator[str]:
    """The absolute modules that are imported, and the names taken from them, dotted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unsafe(tree: ast.AST) -> list[str]:
    """What makes code or arbitrary objects out of data."""
    found = [name for name in imports(tree) if name.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
            found.append(f"{node.func.id}() in line {node.lineno}")
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        alias = node.name if isinstance(node, ast.alias) else ""
        if {name, alias} & (UNSAFE_NAMES | {"__import__", "__builtins__", "builtins"}):
            found.append(name or alias)
    return found


def imports_by_name(tree: ast.AST) -> bool:
    return any(
        name.split(".")[0] in ("importlib", "imp", "pkgutil", "zipimport")
        and not any(name == reader or name.startswith(reader + ".") for reader in READING)
        and name != "importlib"  # alone it comes before `importlib.metadata` as in `from importlib import metadata`
        for name in imports(tree)
    ) or any(isinstance(node, ast.Import) and "importlib" in [a.name for a in node.names] for node in ast.walk(tree))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_public_face_is_alphabetical_and_complete() -> None:
    names = list(callboard.__all__)

    assert names == sorted(names)
    assert [name for name in names if not hasattr(callboard, name)] == []


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_nothing_makes_code_or_objects_out_of_data(path: Path) -> None:
    assert unsafe(parsed(path)) == []


def test_few_modules_import_by_name_and_each_has_its_reason() -> None:
    assert {place(path) for path in MODULES if imports_by_name(parsed(path))} == set(IMPORTERS)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "import yaml",
        "eval('1')",
        "exec(text)",
        "__import__('os')",
        "loader = __import__",
        "import builtins",
        "from concurrent.futures import ProcessPoolExecutor",
        "from pydantic import ImportString as Text",
        "import multiprocessing.pool",
    ],
)
def test_the_search_for_unsafe_code_finds_it(source: str) -> None:
    assert unsafe(ast.parse(source))


@pytest.mark.parametrize("source", ["import re; re.compile('x')", "from .code import x", "await loop.exec()"])
def test_the_search_for_unsafe_code_finds_nothing_else(source: str) -> None:
    assert unsafe(ast.parse(source)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import importlib", True),
        ("import importlib.util", True),
        ("from importlib import import_module", True),
        ("from importlib.machinery import SourceFileLoader", True),
        ("import pkgutil", True),
        ("from importlib import metadata", False),
        ("from importlib.metadata import version", False),
        ("import importlib.resources", False),
    ],
)
def test_the_search_for_imports_by_name_finds_those_that_run_code(source: str, *, found: bool) -> None:
    assert imports_by_name(ast.parse(source)) is found


def test_no_module_has_a_name_that_says_nothing() -> None:
    nothing = re.compile(r"(^|_)(util|utils|common|helper|helpers|base|manager|misc)(_|$)")

    assert [place(path) for path in MODULES if any(nothing.search(part) for part in _parts(path))] == []


def _parts(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).with_suffix("").parts)


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    lengths = {place(path): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: length for name, length in lengths.items() if length > LONGER.get(name, MAX_LINES)} == {}


def test_every_package_of_the_house_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]

    present = {"callboard"} | {
        "callboard." + ".".join(path.parent.relative_to(ROOT).parts) for path in MODULES if path.parent != ROOT
    }
    assert set(listed) == present


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"callboard": project["dependencies"], **project["optional-dependencies"]}
    reasons = tomllib.loads((ROOT / "tests/house/dependencies.toml").read_text())

    used = {
        group: {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in lines if not line.startswith("callboard[")}
        for group, lines in groups.items()
    }
    assert {group: names for group, names in used.items() if names} == {g: set(r) for g, r in reasons.items()}
    assert [name for group in reasons.values() for name, reason in group.items() if len(reason) < 10] == []


def test_the_glossary_is_alphabetical_and_says_each_word_once() -> None:
    words = re.findall(r"^\*\*(.+?)\*\*", (ROOT / "GLOSSARY.md").read_text(), re.MULTILINE)

    assert words
    assert words == sorted(set(words), key=str.casefold)


def test_the_glossary_knows_every_state_of_a_job() -> None:
    text = (ROOT / "GLOSSARY.md").read_text()

    assert [state.value for state in State if f"`{state.value}`" not in text] == []


def test_the_readme_leads_to_the_security_policy() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()


def test_the_changelog_begins_with_what_is_not_released() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == "[Unreleased]"
