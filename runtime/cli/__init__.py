"""The command line: `callboard`, or `python -m callboard`.

main ── Typer ──> one module a group of commands ──> runtime
  └─ failures: every expected error is one line on stderr and an exit code
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from io import TextIOWrapper
from typing import Annotated

import typer

from .dead import dead_app
from .demo import demo
from .doctor import doctor
from .enqueue import enqueue
from .failures import USAGE, CommandFailed, ending
from .health import health
from .help_text import unwrap_help
from .jobs import jobs_app
from .logs import LogLevel, log_to
from .queues import queues_app
from .run import run, up
from .schedule_changes import schedules_app
from .submit import submit
from .wiring import wiring
from .workers import workers

__all__ = ["main"]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"callboard {installed_version('callboard')}")
        raise typer.Exit


app = typer.Typer(
    name="callboard",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they show the values of variables, passwords among them
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _callboard(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print it.")
    ] = False,
) -> None:
    """Background jobs and schedules for Python services, as actors on RabbitMQ.

    Settings come from a command's flags, then from CALLBOARD_BROKER, CALLBOARD_STORE, CALLBOARD_NAMESPACE and so on,
    then from a callboard.toml in the working directory:

    \b
    broker = "amqp://user:password@rabbitmq:5672/"
    store = "redis://redis:6379/0"
    namespace = "shop"

    \b
    callboard demo                                a look, without any server
    callboard up myservice.jobs:app               everything in one process
    callboard run worker --app myservice.jobs:app one kind of actor
    callboard enqueue emails.send -q emails       a job by hand
    callboard queues                              how things stand

    Exit codes: 0 done, 1 failed, 2 usage or configuration, 69 store or broker unavailable, 70 an actor failed too
    often.
    """
    _ = version


app.command(rich_help_panel="Try")(demo)
app.command(rich_help_panel="Run")(up)
app.command(rich_help_panel="Run", no_args_is_help=True)(run)
app.command(rich_help_panel="Jobs", no_args_is_help=True)(enqueue)
app.command(rich_help_panel="Jobs", no_args_is_help=True)(submit)
app.add_typer(jobs_app, name="jobs", rich_help_panel="Jobs")
app.add_typer(queues_app, name="queues", rich_help_panel="Jobs")
app.add_typer(schedules_app, name="schedules", rich_help_panel="Jobs")
app.add_typer(dead_app, name="dead", rich_help_panel="Jobs")
app.command(rich_help_panel="Look")(workers)
app.command(rich_help_panel="Look")(doctor)
app.command(rich_help_panel="Look")(health)
app.command(rich_help_panel="Look")(wiring)
for one in (app, jobs_app, queues_app, schedules_app, dead_app):
    unwrap_help(one)


def main() -> None:
    """Run the command line in sys.argv and end the process."""
    log_to(level=LogLevel.ERROR)  # `up` and `run` say how much they log
    if isinstance(sys.stdout, TextIOWrapper):  # None where it is closed
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a locale without Unicode is no reason to fail
    sys.exit(ending(_command))


def _command() -> None:
    for number, argument in enumerate(sys.argv[1:], 1):
        try:
            argument.encode()
        except UnicodeEncodeError:  # no server takes it, and no file of ours is named so
            raise CommandFailed(f"argument {number} is not valid UTF-8: {argument[:100]}", code=USAGE) from None
    app(prog_name="callboard")
