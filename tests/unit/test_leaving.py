"""A process that has to leave a handler behind: its exit code, and what it says."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
from callboard import Callboard
from callboard.runtime.actor import Options
from callboard.runtime.cli.failures import ending
from callboard.runtime.cli.run import serve

async def defy():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

class App(Callboard):
    async def __aenter__(self):
        self.defying = asyncio.create_task(defy())
        return await super().__aenter__()

ending(lambda: serve(App(broker="memory://", store="memory://"), ["worker"], Options()))
"""


def test_leaving_a_handler_behind_keeps_the_exit_code_of_the_failure_and_tells_it() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "a handler does not end though it was interrupted" in ended.stderr
    assert "the app has no task" in ended.stderr
