"""Jobs of the sample application on a stack: submitted from outside, asked for from within."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

from containers.stack import WAIT_SECONDS, Stack, StackFailed

PRODUCERS = Path(__file__).parents[2] / "compose" / "producers"
AT_ONCE = 4  # producers
STATES = (
    "import asyncio, json, sys\n"
    "from callboard import Callboard\n"
    "async def main():\n"
    "    async with Callboard() as app:\n"
    "        queue = app.queue('greetings')\n"
    "        print(json.dumps({i: await queue.get_job_state(i) for i in json.loads(sys.argv[1])}))\n"
    "asyncio.run(main())\n"
)


def environment(stack: Stack) -> dict[str, str]:
    """Of a producer that stands outside."""
    return {**os.environ, "CALLBOARD_BROKER": stack.producer_url(), "NO_REPLY": "1"}


def submit(stack: Stack, ids: Sequence[str], *, seconds: float = 0.0, delays: Sequence[float] = (0,)) -> None:
    """Greetings that take so long; the first has the first delay, and so on, in turn."""
    given = environment(stack)

    def one(job_id: str, delay: float) -> None:
        _submit(given, job_id, json.dumps([job_id, seconds]), delay)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(one, ids, cycle(delays)))


def _submit(given: Mapping[str, str], job_id: str, arguments: str, delay: float) -> None:
    """With the bash producer, which tries again where the broker is just coming back."""
    command = [str(PRODUCERS / "submit.sh"), "greetings", job_id, "greet", arguments, str(delay)]
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        done = subprocess.run(command, env=given, check=False, capture_output=True, text=True, timeout=60)
        if not done.returncode:
            return
        if time.monotonic() > deadline:
            raise StackFailed(f"submit.sh {job_id}: {done.returncode}: {done.stderr}")
        time.sleep(0.2)


def wait_completed(stack: Stack, ids: Sequence[str], *, asked: str = "retention") -> None:
    """As a container of service `asked` sees them."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            found = dict(json.loads(stack.python(STATES, json.dumps(ids), service=asked)))
        except StackFailed as unavailable:  # a server, or the container that is asked, is just coming back
            found = {"nothing": str(unavailable)}
        left = {job: state for job, state in found.items() if state != "completed"}
        if not left:
            return
        if time.monotonic() > deadline:
            raise StackFailed(f"{len(left)} of {len(ids)} jobs did not complete: {list(left.items())[:5]}")
        time.sleep(1)
