"""python wheel_contents.py WHEEL: that a wheel holds the package with its data files, and nothing of the tests."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("actors", "brokers", "metadata", "runtime")
DATA = {".lua", ".typed", ".html", ".css", ".js", ".svg"}


def expected(root: Path) -> set[str]:
    """The package's files, as the wheel must name them: the root's modules and those of the four floors."""
    found = [*root.glob("*.py"), root / "py.typed"]
    for folder in FOLDERS:
        found += [path for path in (root / folder).rglob("*") if path.suffix == ".py" or path.suffix in DATA]
    return {f"callboard/{path.relative_to(root)}" for path in found}


def differences(names: Sequence[str], wanted: set[str]) -> list[str]:
    """What is missing, and what has no business in a wheel."""
    packaged = {name for name in names if ".dist-info/" not in name}
    return [
        *(f"missing: {name}" for name in sorted(wanted - packaged)),
        *(f"surplus: {name}" for name in sorted(packaged - wanted)),
    ]


def main() -> int:
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        names = wheel.namelist()
    problems = differences(names, expected(ROOT))
    print("\n".join(problems) or f"{len(names)} files, as they should be")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
