"""A trace from Node, as an OTLP receiver sees it: the worker's run, and that of the job which its task enqueued."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from interop.test_producers import END_SECONDS, environment_of, prepared
from path.place import Place

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Receiver(ThreadingHTTPServer):
    """Keeps (service, name, trace, span, parent) of each span that is exported to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: list[tuple[str, str, str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            names = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    self.server.spans.append((names[0], span.name, *ids))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        serving = threading.Thread(target=receiver.serve_forever, args=(0.05,))
        serving.start()
        yield receiver
        receiver.shutdown()
        serving.join()


async def test_a_trace_from_node_goes_through_the_worker_to_the_job_that_its_task_enqueued(
    place: Place, receiver: Receiver, tmp_path: Path
) -> None:
    folder = await asyncio.to_thread(prepared, "node", tmp_path)
    environment = {
        **environment_of(place),
        "CALLBOARD_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
        "OTEL_SERVICE_NAME": "greeter",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    serving = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard", "up", "interop.traced:app"),
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

    spans = {name: (service, trace, span, parent) for service, name, trace, span, parent in receiver.spans}
    outer, inner = spans["process greetings"], spans["process seconds"]
    assert outer[0] == inner[0] == "greeter"
    assert outer[1] == inner[1] == TRACE
    assert outer[3] == PARENT
    assert inner[3] == outer[2]
