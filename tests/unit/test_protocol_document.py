"""PROTOCOL.md names what the code knows, and no more: members, codes of refusals, settings, events."""

from __future__ import annotations

import re
from pathlib import Path

from callboard.runtime.settings import Settings
from callboard.runtime.submission import MEMBERS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "PROTOCOL.md").read_text()


def section(title: str) -> str:
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The names in the first column of the first table."""
    table = text[text.index("|---|") :].split("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()[1:]]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_member_of_a_submission_is_told_and_no_other() -> None:
    assert set(first_cells(section("The body"))) == MEMBERS


def test_every_code_of_a_refusal_is_told_and_no_other() -> None:
    codes: set[str] = set()
    for module in ("runtime/submission.py", "runtime/strict_json.py", "actors/intake.py"):
        text = (ROOT / module).read_text()
        codes |= set(re.findall(r'(?:_Refuse|Refusal|JsonRefused|_Fault)\(\s*"([a-z0-9-]+)"', text))
    assert len(codes) >= 15
    assert set(first_cells(section("Refusals"))) == codes


def test_every_setting_that_is_told_exists() -> None:
    told = set(re.findall(r"`((?:intake|dead_letter|unknown_task|payload)_[a-z_]+)`", DOCUMENT))
    assert {name for name in Settings.model_fields if name.startswith("intake_")} <= told
    assert told <= set(Settings.model_fields)
