"""compose/compose.yaml for real: it comes up, does its work, loses nothing when a container is killed, ends in order.

The tests share one stack and stand in the order in which they need it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from containers.stack import ACTORS, WAIT_SECONDS, Stack, StackFailed
from interop.test_producers import prepared

PRODUCERS = Path(__file__).parents[2] / "compose" / "producers"
IN_FLIGHT = 40
RUN_SECONDS = 0.5


def submit(stack: Stack, job_id: str, *arguments: object, delay: float = 0) -> None:
    """With the bash producer, which stands outside; it tries again where the broker is just coming back."""
    command = [str(PRODUCERS / "submit.sh"), "greetings", job_id, "greet", json.dumps(arguments), str(delay)]
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        done = subprocess.run(command, env=environment(stack), check=False, capture_output=True, text=True, timeout=60)
        if not done.returncode:
            return
        if time.monotonic() > deadline:
            raise StackFailed(f"submit.sh {job_id}: {done.returncode}: {done.stderr}")
        time.sleep(0.2)


def environment(stack: Stack) -> dict[str, str]:
    return {**os.environ, "CALLBOARD_BROKER": stack.producer_url(), "NO_REPLY": "1"}


def states(stack: Stack, ids: Sequence[str], *, asked: str) -> dict[str, str]:
    """Of these jobs, as a container of service `asked` sees them."""
    code = (
        "import asyncio, json, sys\n"
        "from callboard import Callboard\n"
        "async def main():\n"
        "    async with Callboard() as app:\n"
        "        queue = app.queue('greetings')\n"
        "        print(json.dumps({i: await queue.get_job_state(i) for i in json.loads(sys.argv[1])}))\n"
        "asyncio.run(main())\n"
    )
    return dict(json.loads(stack.python(code, json.dumps(ids), service=asked)))


def wait_completed(stack: Stack, ids: Sequence[str], *, asked: str = "retention") -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            found = states(stack, ids, asked=asked)
        except StackFailed as unavailable:  # a server, or the container that is asked, is just coming back
            found = {"nothing": str(unavailable)}
        left = {job: state for job, state in found.items() if state != "completed"}
        if not left:
            return
        if time.monotonic() > deadline:
            raise StackFailed(f"{len(left)} of {len(ids)} jobs did not complete: {list(left.items())[:5]}")
        time.sleep(1)


def test_containers_are_not_root_and_cannot_write_and_tell_no_password(stack: Stack) -> None:
    kept = stack.producer_url().split(":")[2].partition("@")[0]
    for service in ACTORS:
        (container,) = stack.inspect(service)
        assert container["Config"]["User"] == "callboard"
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["Memory"] > 0
        assert "://" not in " ".join(container["Config"]["Env"])
        assert kept not in json.dumps(container)


def test_a_job_of_a_node_producer_outside_runs(stack: Stack, tmp_path: Path) -> None:
    folder = prepared("node", tmp_path)
    command = ["node", "submit.js", "greetings", "from-node", "greet", '["node"]']
    subprocess.run(command, cwd=folder, env=environment(stack), check=True, timeout=60, capture_output=True)

    wait_completed(stack, ["from-node"])
    shown = json.loads(stack.callboard("jobs", "show", "from-node", "--queue", "greetings", "--json"))
    assert shown["result"] == "hello node"


def test_a_delayed_job_and_a_schedule_run(stack: Stack) -> None:
    stack.callboard(
        "enqueue", "greet", "--queue", "greetings", "--args", '["later"]', "--delay", "2", "--job-id", "later"
    )
    wait_completed(stack, ["later"])

    deadline = time.monotonic() + WAIT_SECONDS
    while '"tick"' not in (seen := stack.callboard("jobs", "list", "--queue", "greetings", "--json")):
        assert time.monotonic() < deadline, seen[-500:]
        time.sleep(1)


def test_the_user_for_producers_may_submit_and_nothing_else(stack: Stack) -> None:
    url = stack.producer_url().rstrip("/")
    for exchange, refused in (("callboard.submit", False), ("callboard.jobs", True), ("callboard.control", True)):
        command = ["amqp-publish", f"--url={url}", f"--exchange={exchange}", "--routing-key=none", "--body={}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ("access to exchange" in done.stderr) is refused, (exchange, done.stderr)
    command = ["amqp-get", f"--url={url}", "--queue=callboard.dead"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "access to queue" in done.stderr


@pytest.mark.parametrize("service", [*ACTORS, "rabbitmq", "store"])
def test_a_killed_container_comes_back_and_nothing_is_lost(stack: Stack, service: str) -> None:
    ids = [f"{service}-{number}" for number in range(IN_FLIGHT)]
    for number, job_id in enumerate(ids):
        if number == IN_FLIGHT // 2:
            stack.kill(service)
        submit(stack, job_id, job_id, RUN_SECONDS, delay=number % 2)  # some run, some wait, some are delayed

    stack.wait_healthy(["rabbitmq", "store", *ACTORS])
    wait_completed(stack, ids, asked="delayed-scanner" if service == "retention" else "retention")


def test_workers_are_scaled_while_the_rest_goes_on(stack: Stack) -> None:
    ids = [f"scaled-{number}" for number in range(IN_FLIGHT)]
    for job_id in ids:
        submit(stack, job_id, job_id)
    stack.compose("up", "--detach", "--no-recreate", "--scale=worker=4", "worker", timeout=300)
    stack.wait_healthy(["worker"])
    assert len(stack.inspect("worker")) == 4
    wait_completed(stack, ids)


def test_stopping_ends_every_container_in_order(stack: Stack) -> None:
    stack.compose("stop", timeout=180)

    for service in (*ACTORS, "store", "rabbitmq"):
        codes = [container["State"]["ExitCode"] for container in stack.inspect(service)]
        assert set(codes) == {0}, service
