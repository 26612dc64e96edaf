"""What belongs into a wheel: every file of the package, nothing of the tests."""

from __future__ import annotations

from pathlib import Path

from house.wheel_contents import ROOT, differences, expected


def test_the_packages_data_files_belong_into_the_wheel() -> None:
    wanted = expected(ROOT)

    assert {"callboard/__init__.py", "callboard/py.typed"} <= wanted
    assert [name for name in wanted if name.endswith(".lua")]
    assert [name for name in wanted if "/tests/" in name or "/.venv/" in name] == []


def test_what_is_missing_and_what_is_surplus_is_named(tmp_path: Path) -> None:
    names = ["callboard/__init__.py", "callboard/tests/run", "callboard-0.1.0.dist-info/METADATA"]

    assert differences(names, {"callboard/__init__.py", "callboard/py.typed"}) == [
        "missing: callboard/py.typed",
        "surplus: callboard/tests/run",
    ]
