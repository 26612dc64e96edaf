"""`/live`, `/ready` and `/metrics` over HTTP, answered by threads of their own: a loop that stands still can be told,
and is.

    GET /live     200 while the event loop runs, else 503
    GET /ready    200 while the process can do its work, else 503
    GET /metrics  what the process counts, in Prometheus's text format, where the setting `metrics` says so; else 404

The first two answer with the same JSON document, a `Report`. It names actors and ages and no address, and metrics name
queues and tasks: neither needs a secret. It listens on the loopback interface unless told otherwise.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

import msgspec

from .errors import ConfigurationError
from .health import Report
from .prometheus import CONTENT_TYPE

MOST_AT_A_TIME = 8  # more connections than that are closed unanswered
PATIENCE_SECONDS = 5.0  # for a request to arrive
LOOK_SECONDS = 0.1  # how often the server looks whether it should end


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_SECONDS
    server_version = "callboard"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics" and self.server.metrics is not None:
            self._answer(200, self.server.metrics(), CONTENT_TYPE)
            return
        report = self.server.report()
        fine = {"/live": report.live, "/ready": report.ready}.get(path)
        if fine is not None:
            self._answer(200 if fine else 503, msgspec.json.encode(report))
        elif path == "/metrics":
            self._answer(404, b'{"error": "there are none: set CALLBOARD_METRICS=prometheus"}')
        else:
            self._answer(404, b'{"error": "ask for /live, /ready or /metrics"}')

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds: nothing to be logged."""


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], report: Callable[[], Report], metrics: Callable[[], bytes] | None
    ) -> None:
        self.report = report
        self.metrics = metrics
        self._free = threading.BoundedSemaphore(MOST_AT_A_TIME)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away before it was answered."""


class HealthServer:
    """ConfigurationError: the address cannot be listened on."""

    def __init__(
        self, report: Callable[[], Report], *, host: str, port: int, metrics: Callable[[], bytes] | None = None
    ) -> None:
        try:
            self._server = _Server((host, port), report, metrics)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"health_host {host!r}, health_port {port}: cannot be listened on ({error}); each process of a machine "
                "needs a port of its own"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(LOOK_SECONDS,), name="callboard-health", daemon=True
        )

    @property
    def port(self) -> int:
        """The one it listens on, where 0 was asked for."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
