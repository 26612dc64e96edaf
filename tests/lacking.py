"""What becomes of a test that needs something which is not here."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def do_without(reason: str, *, in_ci: str = "") -> NoReturn:
    """Skip the test that is running, or prepared; where CI is set, fail it, with `in_ci` behind the reason."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{reason} {in_ci}".rstrip(), pytrace=False)
    pytest.skip(reason)
