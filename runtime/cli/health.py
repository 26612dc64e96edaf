"""`callboard health`: asks processes on this machine how they are; for container engines and for people."""

from __future__ import annotations

import http.client
from typing import Annotated, Any

import msgspec
import typer

from ..errors import ConfigurationError
from ..health import Report
from ..settings import load_settings
from .failures import FAILURE, UNAVAILABLE, tell
from .options import AsJson
from .screen import print_json

_decode = msgspec.json.Decoder(Report).decode


def health(
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Default: CALLBOARD_HEALTH_PORT.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Default: CALLBOARD_HEALTH_HOST, or 127.0.0.1.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Only whether it lives, not whether it is ready.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Ask so many ports from this one on.")
    ] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, max=300, metavar="SECONDS", help="For each answer.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Ask a process that runs with --health-port whether it is ready, or alive.

    Alive: its event loop runs. Ready: also, each of its actors works, and messages through the broker and questions to
    the store have come back within the last 15 s.

    \b
    callboard health --port 8090
    callboard health --port 8090 --live

    Exit codes: 0 it is, 1 it is not, 2 usage or configuration, 69 nobody answers.
    """
    settings = load_settings()
    first = port or settings.health_port
    if first is None:
        raise ConfigurationError(
            "which port? give --port, or set CALLBOARD_HEALTH_PORT, as for the process asked about"
        )
    answers = [_ask(host or settings.health_host, first + number, live, timeout) for number in range(processes)]
    if as_json:
        print_json([answer for _, answer in answers] if processes > 1 else answers[0][1])
    codes = [code for code, _ in answers]
    for code, answer in answers:
        where = f"{answer['host']}:{answer['port']}"
        if as_json:
            continue
        if code == UNAVAILABLE:
            tell(f"{where} does not answer: {answer['error']}")
        elif code == FAILURE:
            tell(f"{where} is not {'alive' if live else 'ready'}: {'; '.join(answer['reasons'])}")
        else:
            print(f"{where} is {'alive' if live else 'ready'}")
    if any(codes):
        raise typer.Exit(max(codes))


def _ask(host: str, port: int, live: bool, timeout: float) -> tuple[int, dict[str, Any]]:
    """An exit code, and what was answered."""
    asked: dict[str, Any] = {"host": host, "port": port}
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/live" if live else "/ready")
        response = connection.getresponse()
        report = _decode(response.read(64 * 1024))
    except (OSError, UnicodeError, http.client.HTTPException, msgspec.MsgspecError) as error:
        return UNAVAILABLE, {**asked, "error": str(error) or type(error).__name__}
    finally:
        connection.close()
    code = 0 if response.status == http.client.OK else FAILURE
    return code, {**asked, **msgspec.to_builtins(report)}
