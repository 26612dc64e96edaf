"""The names and shapes of the public face that users of AsyncMQ and BullMQ know."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import callboard
from callboard import Callboard, Queue

METHODS = {
    "add": ["task_id", "args", "kwargs", "retries", "ttl", "timeout", "backoff", "priority", "delay", "run_at",
            "job_id", "deduplication", "debounce", "depends_on", "meta", "confirm"],
    "add_bulk": ["jobs", "confirm"],
    "cancel_job": ["job_id"],
    "clean": ["state", "older_than"],
    "clean_jobs": ["grace", "limit", "state"],
    "count": [],
    "delay": ["payload", "run_at"],
    "drain": ["include_delayed"],
    "enqueue": ["payload"],
    "enqueue_delayed": ["payload", "run_at"],
    "get_active": ["start", "end"],
    "get_completed": ["start", "end"],
    "get_debounce_job_id": ["deduplication_id"],
    "get_deduplication_job_id": ["deduplication_id"],
    "get_delayed": ["start", "end"],
    "get_failed": ["start", "end"],
    "get_job": ["job_id"],
    "get_job_count_by_types": ["types"],
    "get_job_counts": ["types"],
    "get_job_progress": ["job_id"],
    "get_job_result": ["job_id"],
    "get_job_state": ["job_id"],
    "get_jobs": ["types", "start", "end", "asc"],
    "get_waiting": ["start", "end"],
    "get_waiting_children": ["start", "end"],
    "is_paused": [],
    "list_delayed": [],
    "list_jobs": ["state"],
    "obliterate": ["force"],
    "pause": [],
    "promote_job": ["job_id"],
    "queue_stats": [],
    "remove_deduplication_key": ["deduplication_id"],
    "remove_delayed": ["job_id"],
    "remove_job": ["job_id"],
    "reschedule_delayed": ["job_id", "delay", "run_at"],
    "resume": [],
    "retry_job": ["job_id"],
    "send": ["payload"],
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_queue_has_each_known_method_as_a_coroutine_with_its_parameters(name: str) -> None:
    method = getattr(Queue, name)
    assert inspect.iscoroutinefunction(method)
    assert list(inspect.signature(method).parameters)[1:] == METHODS[name]


async def test_an_item_of_a_bulk_has_the_members_that_add_has_parameters() -> None:
    async with Callboard(broker="memory://", store="memory://") as app:
        item = dict.fromkeys([*METHODS["add"], "jobId"], None) | {"task_id": "t"}
        del item["confirm"]
        assert len(await app.queue("q").add_bulk([item])) == 1


def test_the_public_names_are_sorted_and_all_there() -> None:
    assert callboard.__all__ == sorted(callboard.__all__)
    assert [name for name in callboard.__all__ if not hasattr(callboard, name)] == []


def test_the_test_kit_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from callboard.runtime import testing; print(*testing.__all__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout

    assert {"crash_at_every_step", "running", "settled", "simulate"} <= set(said.split())


def test_what_other_decorators_left_on_a_function_takes_the_place_of_nothing_of_a_task() -> None:
    async def build(pages: int) -> int:
        return pages

    vars(build).update(name="theirs", options={"a": 1}, author="kept")
    app, other = Callboard(), Callboard()
    task = app.task(name="build")(build)
    assert (task.name, app.find_task("build"), vars(task)["author"]) == ("build", task, "kept")
    assert callable(task.options)

    again = other.task(name="again")(task)
    assert (again.name, again.app, other.find_task("again"), again.is_async) == ("again", other, again, True)
    assert (task.name, task.app) == ("build", app)
