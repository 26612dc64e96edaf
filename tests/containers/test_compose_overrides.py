"""The overrides: MongoDB as the store, RabbitMQ as a cluster of three."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from containers.stack import ACTORS, WAIT_SECONDS, Stack

# Groups of a hundred with a pause between them, so that jobs are made, sent and run all the while.
FLOOD = """
import asyncio, sys
from shop import app

async def main(first, count):
    async with app:
        queue = app.queue("greetings")
        for start in range(first, first + count, 100):
            names = [f"flood-{n}" for n in range(start, start + 100)]
            await queue.add_bulk([
                {"task_id": "greet", "args": [name], "kwargs": {"seconds": 0.05}, "job_id": name} for name in names
            ])
            await asyncio.sleep(0.3)

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""
# What the actors may do to MongoDB, and what becomes of four attempts at more.
RIGHTS = """
import json, pathlib, pymongo
client = pymongo.MongoClient(pathlib.Path("/run/secrets/callboard_store").read_text())
known = client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
refused = []
for database, command in (
    ("other", {"insert": "jobs", "documents": [{}]}),
    ("callboard", {"drop": "callboard.jobs"}),
    ("callboard", {"createUser": "second", "pwd": "second", "roles": []}),
    ("admin", {"serverStatus": 1}),
):
    try:
        client[database].command(command)
    except pymongo.errors.OperationFailure as error:
        refused.append(error.code)
print(json.dumps({
    "roles": known["authenticatedUserRoles"],
    "privileges": [[one["resource"], sorted(one["actions"])] for one in known["authenticatedUserPrivileges"]],
    "refused": refused,
    "secrets": sorted(path.name for path in pathlib.Path("/run/secrets").iterdir()),
}))
"""
UNAUTHORIZED = 13
NODES = ["rabbitmq", "rabbitmq-2", "rabbitmq-3"]


def test_with_mongodb_and_compose_v2_a_job_runs(image: str, compose_v2: list[str]) -> None:
    services = ["rabbitmq", "store", "worker", "intake", "stalled-recovery"]
    with Stack("mongodb", services=services, scale={"worker": 2}, program=compose_v2) as stack:
        assert int(stack.compose("version", "--short").lstrip("v").partition(".")[0]) >= 2
        stack.wait_healthy(services)
        printed = stack.callboard("enqueue", "greet", "--queue", "greetings", "--args", '["mongo"]', "--wait")
        assert "hello mongo" in printed

        rights = json.loads(stack.python(RIGHTS))
        assert rights["roles"] == [{"role": "callboard", "db": "callboard"}]
        actions = sorted(["find", "insert", "update", "remove", "createIndex", "dropIndex", "listIndexes"])
        assert rights["privileges"] == [[{"db": "callboard", "collection": ""}, actions]]
        assert rights["refused"] == [UNAUTHORIZED] * 4
        assert rights["secrets"] == ["callboard_broker", "callboard_store", "password"]
        (user,) = stack.inspect("store-user")
        assert (user["State"]["Status"], user["State"]["ExitCode"]) == ("exited", 0)
        found = json.loads(stack.callboard("doctor", "--json", check=False))
        about_mongodb = [one["check"] for one in found["findings"] if one["check"].startswith("mongodb")]
        assert (found["errors"], about_mongodb) == (0, ["mongodb-standalone"])

        stack.compose("stop", timeout=180)
        codes = {service: [one["State"]["ExitCode"] for one in stack.inspect(service)] for service in services}
        assert codes == {"rabbitmq": [0], "store": [0], "worker": [0, 0], "intake": [0], "stalled-recovery": [0]}


@pytest.mark.soak
def test_ten_thousand_jobs_run_once_while_one_broker_node_after_another_stops(image: str) -> None:
    with Stack("cluster", scale={"worker": 2}) as stack, ThreadPoolExecutor() as threads:
        stack.wait_healthy([*NODES, "store", *ACTORS])
        for number, node in enumerate(NODES):
            flood = threads.submit(stack.python, FLOOD, str(number * 3000), "1500", service="retention")
            stack.compose("stop", node, timeout=180)
            flood.result()
            flood = threads.submit(stack.python, FLOOD, str(number * 3000 + 1500), "1500", service="retention")
            stack.compose("start", node, timeout=180)
            stack.wait_healthy([node])
            flood.result()
        stack.python(FLOOD, "9000", "1000", service="retention")
        deadline = time.monotonic() + 2 * WAIT_SECONDS
        while True:
            (counts,) = json.loads(stack.callboard("queues", "--json"))
            if counts["completed"] >= 10_000 and counts["waiting"] + counts["active"] + counts["delayed"] == 0:
                break
            assert time.monotonic() < deadline, counts
            time.sleep(2)
        lines = stack.compose("logs", "--no-color", "worker").splitlines()
        runs = Counter(line.rpartition("greeting ")[2].strip() for line in lines if "greeting flood-" in line)
        print(f"{sum(runs.values())} runs of {len(runs)} jobs")
        assert len(runs) == 10_000
        assert [job for job, times in runs.items() if times != 1] == []
