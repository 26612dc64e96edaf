"""The overrides: MongoDB as the store, RabbitMQ as a cluster of three; and what two stacks may not share."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from containers.stack import ACTORS, WAIT_SECONDS, Stack

FLOOD = """
import asyncio, sys
from shop import app

async def main(first, count):
    async with app:
        queue = app.queue("greetings")
        for start in range(first, first + count, 500):
            names = [f"flood-{n}" for n in range(start, start + 500)]
            await queue.add_bulk([{"task_id": "greet", "args": [name], "job_id": name} for name in names])

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


def test_with_mongodb_a_job_runs(image: str) -> None:
    with Stack("mongodb", services=["worker", "intake", "stalled-recovery"]) as stack:
        stack.wait_healthy(["rabbitmq", "store", "worker", "intake", "stalled-recovery"])
        printed = stack.callboard("enqueue", "greet", "--queue", "greetings", "--args", '["mongo"]', "--wait")
        assert "hello mongo" in printed


@pytest.mark.soak
def test_ten_thousand_jobs_run_once_while_one_broker_node_after_another_stops(image: str) -> None:
    nodes = ["rabbitmq", "rabbitmq-2", "rabbitmq-3"]
    with Stack("cluster") as stack:
        stack.wait_healthy([*nodes, "store", *ACTORS])
        for round_, node in enumerate((*nodes, "")):
            if node:
                stack.compose("stop", node, timeout=180)
            stack.python(FLOOD, str(round_ * 2500), "2500", service="worker")
            if node:
                stack.compose("start", node, timeout=180)
                stack.wait_healthy([node])
        deadline = time.monotonic() + 2 * WAIT_SECONDS
        while True:
            (counts,) = json.loads(stack.callboard("queues", "--json"))
            if counts["completed"] >= 10_000:
                break
            assert time.monotonic() < deadline, counts
            time.sleep(2)
        lines = stack.compose("logs", "--no-color", "worker").splitlines()
        runs = Counter(line.rpartition("greeting ")[2].strip() for line in lines if "greeting flood-" in line)
        print(f"{sum(runs.values())} runs of {len(runs)} jobs")
        assert len(runs) == 10_000
        assert [job for job, times in runs.items() if times != 1] == []
