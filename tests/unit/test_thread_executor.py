"""The executor of sync functions where the system gives no more threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from callboard.runtime.arguments import Signature
from callboard.runtime.context import Context
from callboard.runtime.executors.contract import Call
from callboard.runtime.executors.thread import ThreadExecutor

MORE_THAN_THERE_IS = 1 << 48  # bytes of stack: beyond what a process can address, so no thread starts


def seven() -> int:
    return 7


async def test_where_no_thread_can_start_a_call_fails_and_later_calls_run() -> None:
    released: list[None] = []
    context = Context(
        job_id="1", queue="q", task="seven", attempt=1, dispatch=1, fence=1, worker="boot", meta={},
        report=lambda value: None, lease_is_certain=lambda: True,
    )  # fmt: skip
    call = Call(
        function=seven,
        signature=Signature(seven, injected=Context),
        context=context,
        result_limit=100,
        released=lambda: released.append(None),
    )
    executor = ThreadExecutor(1)
    usual = threading.stack_size(MORE_THAN_THERE_IS)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await executor.run(call)
    finally:
        threading.stack_size(usual)
    assert (executor.busy, len(released)) == (0, 1)

    async with asyncio.timeout(60):
        assert await executor.run(call) == b"7"
    assert (executor.busy, len(released)) == (0, 2)
    await executor.close(60)
