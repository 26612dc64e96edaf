"""A trace from Node, as an OTLP receiver sees it: the worker's run, and that of the job which its task enqueued; and
the same trace in what the process logs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.test_producers import END_SECONDS, environment_of, prepared
from otlp import Receiver, receiving
from path.place import Place

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


async def test_a_trace_from_node_goes_through_the_worker_to_the_job_that_its_task_enqueued(
    place: Place, receiver: Receiver, tmp_path: Path
) -> None:
    folder = await asyncio.to_thread(prepared, "node", tmp_path)
    environment = {
        **environment_of(place),
        "CALLBOARD_TRACING": "true",
        "CALLBOARD_METRICS": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_SERVICE_NAME": "greeter",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    serving = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard", "up", "interop.traced:app", "--log-format", "json"),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert serving.stderr is not None
        async with asyncio.timeout(END_SECONDS):
            while b"connected" not in (line := await serving.stderr.readline()):
                assert line, "callboard up ended"
        said = asyncio.create_task(serving.stderr.read())
        producer = await asyncio.create_subprocess_exec(
            *("node", "submit.js", "greetings", "traced", "greet", '["trace"]'),
            cwd=folder,
            env={**environment, "TRACEPARENT": f"00-{TRACE}-{PARENT}-01"},
            stdout=asyncio.subprocess.PIPE,
        )
        answered, _ = await asyncio.wait_for(producer.communicate(), END_SECONDS)
        assert json.loads(answered)["ok"] is True
        async with asyncio.timeout(END_SECONDS):
            while len(receiver.spans) < 2:
                await asyncio.sleep(0.05)
    finally:
        if serving.returncode is None:
            serving.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(serving.wait(), END_SECONDS) == 0, await said

    spans = {span.name: span for span in receiver.spans}
    outer, inner = spans["process greetings"], spans["process seconds"]
    assert outer.service == inner.service == "greeter"
    assert outer.trace == inner.trace == TRACE
    assert outer.parent == PARENT
    assert inner.parent == outer.span

    lines = [json.loads(line) for line in (await said).splitlines()]
    logged = {line["message"]: line for line in lines if line["logger"] == "traced"}
    for message, span, queue in (("in the loop", outer, "greetings"), ("in a thread", inner, "seconds")):
        line = logged[message]
        assert (line["trace_id"], line["span_id"], line["queue"], line["attempt"]) == (TRACE, span.span, queue, 1)
    assert logged["in the loop"]["job_id"] == "traced"
    assert lines[-1]["message"] == "ended in order"

    runs = {point.attributes["messaging.destination.name"]: point.value for point in receiver.points
            if point.name == "messaging.process.duration"}  # fmt: skip
    assert runs == {"greetings": 1, "seconds": 1}, "what was counted is exported at the end at the latest"
