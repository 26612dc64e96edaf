"""Executors: functions on the loop, in threads, and in child processes that are really started and really killed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from callboard.runtime.arguments import ArgumentsInvalid, Signature
from callboard.runtime.context import Context
from callboard.runtime.executors.child_process import Limits
from callboard.runtime.executors.contract import (
    Call,
    Executor,
    ExecutorClosed,
    TaskExited,
    TaskTimeout,
    TaskUnreachable,
    WorkerProcessDied,
)
from callboard.runtime.executors.importable import check_importable, check_reachable, find
from callboard.runtime.executors.loop import LoopExecutor
from callboard.runtime.executors.process import ProcessExecutor
from callboard.runtime.executors.thread import ThreadExecutor
from callboard.runtime.results import RemoteFailure, ResultInvalid, ResultTooLarge, describe_error
from callboard.runtime.retry import Retry, RetryPolicy
from integration import process_tasks as tasks

LIMIT = 1_000_000
PATIENCE = 20.0


class Lease:
    certain = True


def call_of(
    function: Callable[..., Any],
    *args: Any,
    timeout: float | None = None,
    limit: int = LIMIT,
    released: Callable[[], None] = lambda: None,
    report: Callable[[Any], None] = lambda value: None,
    lease: Lease | None = None,
    **kwargs: Any,
) -> Call:
    context = Context(
        job_id="job-1", queue="mail", task="t", attempt=2, dispatch=3, fence=4, worker="w", meta={"tenant": "a"},
        report=report, lease_is_certain=lambda: (lease or Lease).certain,
    )  # fmt: skip
    return Call(
        function=function,
        signature=Signature(function, injected=Context),
        context=context,
        args=json.dumps(args).encode(),
        kwargs=json.dumps(kwargs).encode(),
        timeout_ms=None if timeout is None else round(timeout * 1000),
        result_limit=limit,
        released=released,
    )


async def written(note: Path) -> list[int]:
    """The numbers in a file, once it is there."""
    return [int(word) for word in (await text_of(note)).split()]


async def text_of(note: Path) -> str:
    async with asyncio.timeout(PATIENCE):
        while (text := _read(note)) is None:
            await asyncio.sleep(0.005)
    return text


def _read(note: Path) -> str | None:
    return note.read_text() if note.exists() else None


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def runs(pid: int) -> bool:
    """Not so for a zombie, which waits for whoever adopted it."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def ended(pid: int) -> None:
    """Returns when a process that is not our child has ended; fails after a while."""
    async with asyncio.timeout(PATIENCE):
        while runs(pid):
            await asyncio.sleep(0.005)


def descriptors() -> set[str]:
    listed = os.listdir("/proc/self/fd")  # names the listing's own descriptor too, which is closed again
    return {f"{name} {os.readlink(f'/proc/self/fd/{name}')}" for name in listed if is_open(name)}


def is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


@pytest.fixture
async def processes() -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor(2)
    yield executor
    await executor.close(0)
    assert executor.pids == []
    assert (executor.busy, executor.abandoned) == (0, 0)


@pytest.fixture
async def threads() -> AsyncIterator[ThreadExecutor]:
    executor = ThreadExecutor(2)
    yield executor
    await executor.close(1)


# --- every kind ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["loop", "thread", "process"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Executor, Callable[..., Any]]]:
    """An executor, and a function that adds two numbers there."""
    executor: Executor = {
        "loop": LoopExecutor,
        "thread": lambda: ThreadExecutor(2),
        "process": lambda: ProcessExecutor(2),
    }[request.param]()
    yield executor, tasks.add_async if request.param == "loop" else tasks.add
    await executor.close(1)


async def test_a_call_returns_the_json_of_its_result_and_frees_its_slot(
    pair: tuple[Executor, Callable[..., Any]],
) -> None:
    executor, add = pair
    released: list[int] = []
    assert await executor.run(call_of(add, 1, b=2, released=lambda: released.append(executor.busy))) == b"3"
    assert await executor.run(call_of(add, 1)) == b"11"
    assert released == [0]
    assert (executor.busy, executor.abandoned) == (0, 0)


async def test_arguments_that_do_not_fit_are_refused_with_their_path(pair: tuple[Executor, Callable[..., Any]]) -> None:
    executor, add = pair
    with pytest.raises(ArgumentsInvalid) as caught:
        await executor.run(call_of(add, 1, b="2"))
    assert (caught.value.path, caught.value.value) == ("kwargs.b", "'2'")


async def test_a_result_beyond_the_limit_is_refused_with_its_size(pair: tuple[Executor, Callable[..., Any]]) -> None:
    executor, add = pair
    with pytest.raises(ResultTooLarge) as caught:
        await executor.run(call_of(add, 10**9, 1, limit=9))
    assert (caught.value.size, caught.value.limit) == (10, 9)
    assert await executor.run(call_of(add, 10**8, 1, limit=9)) == b"100000001"


async def test_a_closed_executor_takes_no_call(pair: tuple[Executor, Callable[..., Any]]) -> None:
    executor, add = pair
    await executor.close(0)
    released: list[int] = []
    with pytest.raises(ExecutorClosed):
        await executor.run(call_of(add, 1, released=lambda: released.append(1)))
    assert released == [1]


async def test_many_calls_at_once_all_come_back(pair: tuple[Executor, Callable[..., Any]]) -> None:
    executor, add = pair
    results = await asyncio.gather(*(executor.run(call_of(add, number, 0)) for number in range(50)))
    assert results == [str(number).encode() for number in range(50)]
    assert executor.busy == 0


# --- on the loop --------------------------------------------------------------------------------------------------


async def test_an_async_function_is_cancelled_by_its_timeout() -> None:
    executor = LoopExecutor()
    seen: list[str] = []
    released = asyncio.Event()

    async def slow(ctx: Context) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            seen.append(f"cancelled={ctx.cancelled}")

    with pytest.raises(TaskTimeout, match=r"timeout of 0\.02 s"):
        await executor.run(call_of(slow, timeout=0.02, released=released.set))
    await asyncio.wait_for(released.wait(), PATIENCE)
    assert seen == ["cancelled=True"]
    assert (executor.busy, executor.abandoned) == (0, 0)


async def test_an_async_function_that_ignores_its_timeout_keeps_its_slot_until_it_ends() -> None:
    executor = LoopExecutor()
    stubborn_goes_on, released = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await stubborn_goes_on.wait()

    with pytest.raises(TaskTimeout):
        await executor.run(call_of(stubborn, timeout=0.02, released=released.set))
    assert (executor.busy, executor.abandoned, released.is_set()) == (1, 1, False)
    stubborn_goes_on.set()
    await asyncio.wait_for(released.wait(), PATIENCE)
    assert (executor.busy, executor.abandoned) == (0, 0)


async def test_a_timeout_error_of_the_function_itself_is_not_a_task_timeout() -> None:
    async def own() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as caught:
        await LoopExecutor().run(call_of(own, timeout=600))
    assert not isinstance(caught.value, TaskTimeout)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
async def test_an_exit_raised_on_the_loop_ends_the_run_alone(error: BaseException) -> None:
    async def leave() -> None:
        raise error

    with pytest.raises(TaskExited, match=type(error).__name__) as caught:
        await LoopExecutor().run(call_of(leave))
    assert caught.value.__cause__ is error


async def test_cancelling_a_run_cancels_the_function() -> None:
    executor = LoopExecutor()
    started, released = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.sleep(600)

    run = asyncio.create_task(executor.run(call_of(slow, released=released.set)))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.wait_for(released.wait(), PATIENCE)


async def test_closing_cancels_async_functions_after_the_grace() -> None:
    executor = LoopExecutor()
    run = asyncio.create_task(executor.run(call_of(asyncio.sleep, 600)))
    await asyncio.sleep(0)
    await executor.close(0.01)
    with pytest.raises(TaskExited):
        await run
    assert executor.busy == 0


# --- in threads ---------------------------------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def test_a_thread_sees_the_context_variables_of_its_caller(threads: ThreadExecutor) -> None:
    def read() -> list[Any]:
        return [variable.get(), threading.current_thread() is threading.main_thread()]

    variable.set("from the worker")
    assert json.loads(await threads.run(call_of(read))) == ["from the worker", False]


async def test_a_thread_that_outlives_its_timeout_keeps_its_slot_until_it_ends(threads: ThreadExecutor) -> None:
    goes_on, released = threading.Event(), asyncio.Event()
    seen: list[bool] = []

    def slow(ctx: Context) -> str:
        goes_on.wait(PATIENCE)
        seen.append(ctx.cancelled)
        return "too late"

    with pytest.raises(TaskTimeout):
        await threads.run(call_of(slow, timeout=0.02, released=released.set))
    assert (threads.busy, threads.abandoned, released.is_set()) == (1, 1, False)
    goes_on.set()
    await asyncio.wait_for(released.wait(), PATIENCE)
    assert seen == [True]
    assert (threads.busy, threads.abandoned) == (0, 0)


async def test_cancelling_a_run_tells_the_thread_and_does_not_wait_for_it(threads: ThreadExecutor) -> None:
    started, told, released = threading.Event(), threading.Event(), asyncio.Event()

    def slow(ctx: Context) -> None:
        started.set()
        while not ctx.cancelled:
            time.sleep(0.001)
        told.wait(PATIENCE)

    run = asyncio.create_task(threads.run(call_of(slow, released=released.set)))
    await asyncio.to_thread(started.wait)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert threads.abandoned == 1
    told.set()
    await asyncio.wait_for(released.wait(), PATIENCE)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(5), GeneratorExit()])
async def test_an_exit_raised_in_a_thread_ends_the_run_alone(threads: ThreadExecutor, error: BaseException) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(TaskExited, match=type(error).__name__) as caught:
        await threads.run(call_of(leave))
    assert caught.value.__cause__ is error
    assert await threads.run(call_of(tasks.add, 1)) == b"11"


async def test_threads_are_used_again_and_never_more_than_allowed(threads: ThreadExecutor) -> None:
    def name() -> str:
        return threading.current_thread().name

    names = {await threads.run(call_of(name)) for _ in range(20)}
    names |= set(await asyncio.gather(*(threads.run(call_of(name)) for _ in range(20))))
    assert len(names) <= 2


def test_a_thread_that_never_ends_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    script = tmp_path / "stuck.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio, sys, time
        sys.path[:0] = %r
        from integration.test_executors import ThreadExecutor, call_of, TaskTimeout

        def stuck() -> None:
            time.sleep(600)

        async def main() -> None:
            executor = ThreadExecutor(1)
            try:
                await executor.run(call_of(stuck, timeout=0.05))
            except TaskTimeout:
                print("timed out")
            await executor.close(0.05)

        asyncio.run(main())
        """)
        % [str(Path(__file__).parent.parent)]
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "timed out\n"


# --- in child processes -------------------------------------------------------------------------------------------


async def test_a_child_is_another_process_in_a_session_of_its_own(processes: ProcessExecutor) -> None:
    found = json.loads(await processes.run(call_of(tasks.whereabouts)))
    assert found["pid"] != os.getpid()
    assert found["session"] == found["pid"]
    assert found["main_thread"] is True
    assert found["stdin"] == "/dev/null"
    assert found["stdout"] == os.readlink("/proc/self/fd/2")


async def test_a_warm_child_is_used_again(processes: ProcessExecutor) -> None:
    pids = {json.loads(await processes.run(call_of(tasks.whereabouts)))["pid"] for _ in range(5)}
    assert len(pids) == 1


async def test_a_child_is_replaced_after_so_many_calls() -> None:
    executor = ProcessExecutor(1, calls_per_child=2)
    pids = [json.loads(await executor.run(call_of(tasks.whereabouts)))["pid"] for _ in range(4)]
    await executor.close(0)
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_no_child_is_started_before_it_is_needed_and_none_beyond_the_size(processes: ProcessExecutor) -> None:
    assert processes.pids == []
    await asyncio.gather(*(processes.run(call_of(tasks.add, 1)) for _ in range(10)))
    assert 1 <= len(processes.pids) <= 2


async def test_async_functions_and_methods_run_in_children_too(processes: ProcessExecutor) -> None:
    assert await processes.run(call_of(tasks.add_async, 1, 2)) == b"3"
    assert await processes.run(call_of(tasks.Toolbox.double, 4)) == b"8"


def test_a_function_inside_its_task_object_is_found() -> None:
    # What a decorator leaves in the module: an object that holds the function.
    holder = type("Holder", (), {"function": staticmethod(tasks.add)})
    module = type("Module", (), {"add": holder})
    assert find(module, "add") is tasks.add


async def test_the_context_in_a_child_tells_of_the_run_and_takes_progress(processes: ProcessExecutor) -> None:
    reports: list[Any] = []
    told = json.loads(await processes.run(call_of(tasks.tell, steps=3, report=reports.append)))
    assert told == {"job": "job-1", "attempt": 2, "fence": 4, "meta": {"tenant": "a"}, "queue": "mail"}
    assert reports == [{"step": 0}, {"step": 1}, {"step": 2}]


async def test_progress_beyond_its_limit_fails_the_task_and_not_the_child(processes: ProcessExecutor) -> None:
    with pytest.raises(ResultTooLarge):
        await processes.run(call_of(tasks.tell_too_much))
    assert len(processes.pids) == 1


async def test_an_uncertain_lease_reaches_the_child(processes: ProcessExecutor, tmp_path: Path) -> None:
    lease = Lease()
    run = asyncio.create_task(processes.run(call_of(tasks.until_uncertain, str(tmp_path / "note"), lease=lease)))
    await written(tmp_path / "note")
    lease.certain = False
    assert await asyncio.wait_for(run, PATIENCE) == b"true"


@pytest.mark.parametrize("value", [None, [], {}, "", "日本 🎭", 2**63, 1e308, {"a": [None, {"b": None}]}])
async def test_values_come_back_equal_from_a_child(value: Any, processes: ProcessExecutor) -> None:
    assert json.loads(await processes.run(call_of(tasks.echo, value))) == value


async def test_ten_megabytes_go_in_and_come_out(processes: ProcessExecutor) -> None:
    value = "x" * 10_000_000
    result = await processes.run(call_of(tasks.echo, value, limit=11_000_000))
    assert result == f'"{value}"'.encode()


async def test_a_result_too_large_for_the_limit_leaves_the_child_alive(processes: ProcessExecutor) -> None:
    with pytest.raises(ResultTooLarge) as caught:
        await processes.run(call_of(tasks.blob, 10_000_000))
    assert caught.value.size == 10_000_002
    [pid] = processes.pids
    assert json.loads(await processes.run(call_of(tasks.whereabouts)))["pid"] == pid


async def test_a_result_that_is_not_json_is_refused_with_its_path(processes: ProcessExecutor) -> None:
    with pytest.raises(ResultInvalid) as caught:
        await processes.run(call_of(tasks.unserialisable))
    assert caught.value.path == "result.rows[1]"


async def test_an_error_of_a_child_comes_back_as_text_and_names(processes: ProcessExecutor) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await processes.run(call_of(tasks.fail, "worse"))
    info = describe_error(caught.value)
    assert (info.type, info.message) == ("integration.process_tasks.Worse", "worse it is")
    assert info.traceback.index("disk is full") < info.traceback.index("worse it is")
    assert caught.value.class_names[:3] == (
        "integration.process_tasks.Worse",
        "integration.process_tasks.Transient",
        "builtins.Exception",
    )
    policy = RetryPolicy.create(retries=3, backoff=1, retry_on=tasks.Transient)
    assert policy.decide(caught.value, 1, Random(1)) == 1000
    never = RetryPolicy.create(retries=3, backoff=1, give_up_on=tasks.Worse)
    assert never.decide(caught.value, 1, Random(1)) is None


async def test_a_task_in_a_child_can_ask_to_be_run_again(processes: ProcessExecutor) -> None:
    with pytest.raises(Retry) as caught:
        await processes.run(call_of(tasks.ask_again, 2.5))
    assert (caught.value.after_ms, caught.value.reason) == (2500, "not yet")


async def test_sys_exit_in_a_child_is_an_error_like_any_other(processes: ProcessExecutor) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await processes.run(call_of(tasks.end_by, "sys.exit"))
    assert caught.value.class_names[0] == "builtins.SystemExit"
    assert len(processes.pids) == 1


@pytest.mark.parametrize(
    ("way", "exit_code", "signal_number"),
    [("os._exit", 7, None), ("SIGKILL", None, signal.SIGKILL), ("segfault", None, signal.SIGSEGV)],
)
async def test_a_child_that_dies_fails_its_job_alone(
    way: str, exit_code: int | None, signal_number: int | None, processes: ProcessExecutor, tmp_path: Path
) -> None:
    beside = asyncio.create_task(processes.run(call_of(tasks.until_cancelled, str(tmp_path / "note"), timeout=600)))
    await written(tmp_path / "note")
    with pytest.raises(WorkerProcessDied, match="under its task") as caught:
        await processes.run(call_of(tasks.end_by, way))
    assert (caught.value.exit_code, caught.value.signal_number) == (exit_code, signal_number)
    assert await processes.run(call_of(tasks.add, 1)) == b"11"
    assert not beside.done()
    beside.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beside


async def test_a_timeout_kills_the_child_and_what_it_started(processes: ProcessExecutor, tmp_path: Path) -> None:
    await processes.run(call_of(tasks.add, 1))
    [first] = processes.pids
    released = asyncio.Event()
    call = call_of(tasks.hang, str(tmp_path / "note"), timeout=0.5, released=released.set)
    with pytest.raises(TaskTimeout):
        await processes.run(call)
    assert call.context.cancelled
    await asyncio.wait_for(released.wait(), PATIENCE)
    child, grandchild = await written(tmp_path / "note")
    assert child == first
    assert not exists(child)
    await ended(grandchild)
    assert await processes.run(call_of(tasks.add, 1)) == b"11"
    assert processes.pids != [first]


async def test_a_timeout_kills_a_child_that_holds_the_interpreter(processes: ProcessExecutor, tmp_path: Path) -> None:
    await processes.run(call_of(tasks.add, 1))
    released = asyncio.Event()
    call = call_of(tasks.hang_holding_the_interpreter, str(tmp_path / "n"), timeout=0.5, released=released.set)
    with pytest.raises(TaskTimeout):
        await processes.run(call)
    await asyncio.wait_for(released.wait(), PATIENCE)
    [child] = await written(tmp_path / "n")
    assert not exists(child)


async def test_what_a_dead_child_left_behind_is_killed(processes: ProcessExecutor, tmp_path: Path) -> None:
    with pytest.raises(WorkerProcessDied):
        await processes.run(call_of(tasks.leave_a_grandchild, str(tmp_path / "note")))
    [grandchild] = await written(tmp_path / "note")
    await ended(grandchild)


async def test_a_cancelled_task_that_looks_ends_by_itself_and_its_child_is_used_again(tmp_path: Path) -> None:
    executor = ProcessExecutor(1, cancel_grace_seconds=PATIENCE)
    released = asyncio.Event()
    note = tmp_path / "note"
    run = asyncio.create_task(executor.run(call_of(tasks.until_cancelled, str(note), released=released.set)))
    [child] = await written(note)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.wait_for(released.wait(), PATIENCE)
    assert await text_of(tmp_path / "note.end") == "cancelled"
    assert json.loads(await executor.run(call_of(tasks.whereabouts)))["pid"] == child
    await executor.close(0)


async def test_a_cancelled_coroutine_in_a_child_is_interrupted(tmp_path: Path) -> None:
    executor = ProcessExecutor(1, cancel_grace_seconds=PATIENCE)
    released = asyncio.Event()
    note = tmp_path / "note"
    run = asyncio.create_task(executor.run(call_of(tasks.wait_until_cancelled, str(note), released=released.set)))
    [child] = await written(note)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.wait_for(released.wait(), PATIENCE)
    assert await text_of(tmp_path / "note.end") == "cancelled"
    assert executor.pids == [child]
    await executor.close(0)


async def test_a_cancelled_task_that_does_not_look_is_killed(processes: ProcessExecutor, tmp_path: Path) -> None:
    released = asyncio.Event()
    run = asyncio.create_task(processes.run(call_of(tasks.hang, str(tmp_path / "note"), released=released.set)))
    child, grandchild = await written(tmp_path / "note")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (processes.busy, processes.abandoned) == (1, 1)
    await asyncio.wait_for(released.wait(), PATIENCE)
    assert not exists(child)
    await ended(grandchild)


async def test_a_child_that_speaks_nonsense_is_killed(processes: ProcessExecutor) -> None:
    with pytest.raises(WorkerProcessDied, match="4294967295 bytes"):
        await processes.run(call_of(tasks.babble))
    assert await processes.run(call_of(tasks.add, 1)) == b"11"


async def test_memory_beyond_the_limit_fails_the_task_and_not_the_child() -> None:
    executor = ProcessExecutor(1, limits=Limits(memory_bytes=1024**3))
    assert await executor.run(call_of(tasks.allocate, 10)) == str(10 * 1024**2).encode()
    with pytest.raises(RemoteFailure) as caught:
        await executor.run(call_of(tasks.allocate, 2000))
    assert caught.value.class_names[0] == "builtins.MemoryError"
    assert len(executor.pids) == 1
    await executor.close(0)


async def test_the_addresses_of_the_servers_are_withheld_from_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_STORE", "redis://:secret@store")
    monkeypatch.setenv("APP_MODE", "test")
    executor = ProcessExecutor(1)
    assert await executor.run(call_of(tasks.environment, "CALLBOARD_STORE")) == b'"memory://"'
    assert await executor.run(call_of(tasks.environment, "APP_MODE")) == b'"test"'
    await executor.close(0)


async def test_closing_waits_for_what_runs_and_then_kills(tmp_path: Path) -> None:
    executor = ProcessExecutor(2, cancel_grace_seconds=PATIENCE)
    hanging = asyncio.create_task(executor.run(call_of(tasks.hang, str(tmp_path / "hang"))))
    looking = asyncio.create_task(executor.run(call_of(tasks.until_cancelled, str(tmp_path / "look"))))
    child, grandchild = await written(tmp_path / "hang")
    [other] = await written(tmp_path / "look")
    looking.cancel()
    await executor.close(0.5)
    with pytest.raises(WorkerProcessDied, match="SIGKILL"):
        await hanging
    assert executor.pids == []
    assert not exists(child)
    assert not exists(other)
    await ended(grandchild)


async def test_neither_descriptors_nor_children_nor_threads_are_left_behind(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left open is not to vanish meanwhile
    before, threads_before = descriptors(), set(threading.enumerate())
    executor = ProcessExecutor(2)
    pids: set[int] = set()
    for _ in range(3):
        await asyncio.gather(*(executor.run(call_of(tasks.add, 1)) for _ in range(4)))
        pids.update(executor.pids)
    for way in ("os._exit", "SIGKILL"):
        with pytest.raises(WorkerProcessDied):
            await executor.run(call_of(tasks.end_by, way))
    with pytest.raises(TaskTimeout):
        await executor.run(call_of(tasks.hang, str(tmp_path / "note"), timeout=0.5))
    await executor.run(call_of(tasks.add, 1))
    pids.update(executor.pids)
    await executor.close(5)
    assert len(pids) >= 3
    assert [pid for pid in pids if exists(pid)] == []
    assert descriptors() - before == set()

    # The clients of the shared servers start threads of their own when they please; and who watched a child may have
    # told of its end and not be gone yet.
    def left() -> list[str]:
        return [one.name for one in set(threading.enumerate()) - threads_before if not one.name.startswith("pymongo")]

    for _ in range(600):
        if not left():
            break
        await asyncio.sleep(0.1)
    assert left() == []


def local_function() -> Callable[..., Any]:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize(
    ("function", "words"),
    [(lambda: None, "lambda"), (local_function(), "within a function"), (tasks.original, "not this function")],
)
def test_a_function_that_a_child_could_not_find_is_refused(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(TaskUnreachable, match=words):
        check_reachable(function)


async def test_a_call_that_no_child_could_run_frees_its_slot(processes: ProcessExecutor) -> None:
    released: list[int] = []
    with pytest.raises(TaskUnreachable):
        await processes.run(call_of(tasks.original, released=lambda: released.append(1)))
    assert (released, processes.busy) == ([1], 0)


def test_a_function_is_found_by_its_own_name() -> None:
    assert check_reachable(tasks.hidden).qualname == "add"
    assert check_importable(tasks.Toolbox.double).qualname == "Toolbox.double"


MAIN = """
import asyncio, json, os, sys
sys.path[:0] = %(path)r
from integration.test_executors import ProcessExecutor, RemoteFailure, RetryPolicy, Random, call_of

class Oops(Exception):
    pass

def where() -> list:
    return [os.getpid(), __name__]

def fail() -> None:
    raise Oops("from the main file")

def linger(note: str) -> None:
    from integration.process_tasks import hang
    hang(note)

def linger_with_the_interpreter(note: str) -> None:
    from integration.process_tasks import hang_holding_the_interpreter
    hang_holding_the_interpreter(note)

async def main() -> None:
    executor = ProcessExecutor(1)
    if len(sys.argv) > 2:
        await executor.run(call_of(globals()[sys.argv[1]], sys.argv[2]))
    pid, name = json.loads(await executor.run(call_of(where)))
    try:
        await executor.run(call_of(fail))
    except RemoteFailure as error:
        again = RetryPolicy.create(retries=1, backoff=1, retry_on=Oops).decide(error, 1, Random(1))
        print(json.dumps([pid != os.getpid(), name, error.info.type, again]))
    await executor.close(1)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def main_file(tmp_path: Path) -> Path:
    script = tmp_path / "package" / "service.py"
    script.parent.mkdir()
    script.write_text(MAIN % {"path": [str(Path(__file__).parent.parent)]})
    return script


def test_functions_of_the_main_file_are_found_by_its_path(main_file: Path) -> None:
    done = subprocess.run([sys.executable, str(main_file)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [True, "__mp_main__", "__main__.Oops", 1000]


def test_functions_of_a_main_module_are_found_by_its_name(main_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "package.service"],
        capture_output=True, text=True, timeout=60, check=True, cwd=main_file.parent.parent,
    )  # fmt: skip
    assert json.loads(done.stdout) == [True, "package.service", "__main__.Oops", 1000]


@pytest.mark.parametrize("function", ["linger", "linger_with_the_interpreter"])
async def test_a_child_dies_with_its_parent(function: str, main_file: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    parent = subprocess.Popen([sys.executable, str(main_file), function, str(note)])
    try:
        child, *grandchildren = await written(note)
        descriptor = os.pidfd_open(child)
    finally:
        parent.kill()
        parent.wait()
    readable, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], PATIENCE)
    os.close(descriptor)
    for grandchild in grandchildren:  # the one thing that outlives a worker killed with SIGKILL
        os.kill(grandchild, signal.SIGKILL)
    assert readable == [descriptor]


def test_what_a_child_prints_goes_to_standard_error_even_if_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "talk.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio, sys
        sys.path[:0] = %r
        from integration.test_executors import ProcessExecutor, WorkerProcessDied, call_of, tasks

        async def main() -> None:
            executor = ProcessExecutor(1)
            try:
                await executor.run(call_of(tasks.talk, "hear, hear"))
            except WorkerProcessDied as error:
                print(error)
            await executor.close(1)

        if __name__ == "__main__":
            asyncio.run(main())
        """)
        % [str(Path(__file__).parent.parent)]
    )
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True, env=plain
    )
    assert done.stdout == "the child process was ended by SIGKILL under its task\n"
    assert done.stderr == "hear, hear\nhear, hear\n"
