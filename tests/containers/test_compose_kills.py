"""compose/compose.yaml for real: containers are killed with work in flight. The tests share one stack."""

from __future__ import annotations

import pytest

from containers.greetings import submit, wait_completed
from containers.stack import ACTORS, Stack

IN_FLIGHT = 40
RUN_SECONDS = 0.5
DELAYS = (0, 1)  # some run, some wait, some are delayed


@pytest.mark.parametrize("service", [*ACTORS, "rabbitmq", "store"])
def test_a_killed_container_comes_back_and_nothing_is_lost(stack: Stack, service: str) -> None:
    ids = [f"{service}-{number}" for number in range(IN_FLIGHT)]
    before, after = ids[: IN_FLIGHT // 2], ids[IN_FLIGHT // 2 :]
    submit(stack, before, seconds=RUN_SECONDS, delays=DELAYS)
    stack.kill(service)
    submit(stack, after, seconds=RUN_SECONDS, delays=DELAYS)

    stack.wait_healthy(["rabbitmq", "store", *ACTORS])
    wait_completed(stack, ids, asked="delayed-scanner" if service == "retention" else "retention")


def test_containers_that_came_back_end_in_order(stack: Stack) -> None:
    services = [*ACTORS, "rabbitmq", "store"]
    for service in services:
        if not came_back(stack, service):  # where this test runs without the others
            stack.kill(service)
    stack.wait_healthy(services)
    assert [service for service in services if not came_back(stack, service)] == []
    assert stack.stop(services) == {service: [0] for service in services}


def came_back(stack: Stack, service: str) -> bool:
    """Whether the restart policy has brought each of its containers back before."""
    return all(container["RestartCount"] for container in stack.inspect(service))
