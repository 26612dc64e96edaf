"""compose/compose.yaml for real: it comes up, does its work, is scaled, ends in order.

The tests share one stack and stand in the order in which they need it.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from containers.greetings import environment, submit, wait_completed
from containers.stack import ACTORS, WAIT_SECONDS, Stack
from interop.test_producers import prepared

JOBS = 40


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


def test_workers_are_scaled_while_the_rest_goes_on(stack: Stack) -> None:
    ids = [f"scaled-{number}" for number in range(JOBS)]
    submit(stack, ids)
    stack.compose("up", "--detach", "--no-recreate", "--scale=worker=4", "worker", timeout=300)
    stack.wait_healthy(["worker"])
    assert len(stack.inspect("worker")) == 4
    wait_completed(stack, ids)


def test_stopping_ends_every_container_in_order(stack: Stack) -> None:
    codes = stack.stop([*ACTORS, "store", "rabbitmq"])
    assert {service: set(of_each) for service, of_each in codes.items()} == {service: {0} for service in codes}
