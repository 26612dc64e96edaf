"""How a deployment ends."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from callboard.runtime.deployment import in_own_thread


async def test_what_ends_in_a_thread_ends_also_while_handlers_have_taken_all_threads_of_the_loop() -> None:
    over, ended = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    taken = loop.run_in_executor(None, over.wait, 120)
    try:
        async with asyncio.timeout(60):
            await in_own_thread(ended.set)
    finally:
        over.set()
    assert await taken
    assert ended.is_set()
