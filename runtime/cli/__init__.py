"""The command line: `callboard`, or `python -m callboard`.

    main ── Typer ──> one module a group of commands ──> runtime
      └─ failures: every expected error is one line on stderr and an exit code
"""

from __future__ import annotations

import sys

import typer

from .demo import demo
from .enqueue import enqueue
from .failures import ending
from .jobs import jobs_app
from .queues import queues_app
from .run import run, up
from .wiring import wiring
from .workers import workers

__all__ = ["main"]

app = typer.Typer(
    name="callboard",
    help="Background jobs and schedules for Python services, as actors on RabbitMQ.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they show the values of variables, passwords among them
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="Try")(demo)
app.command(rich_help_panel="Run")(up)
app.command(rich_help_panel="Run", no_args_is_help=True)(run)
app.command(rich_help_panel="Jobs", no_args_is_help=True)(enqueue)
app.add_typer(jobs_app, name="jobs", rich_help_panel="Jobs")
app.add_typer(queues_app, name="queues", rich_help_panel="Jobs")
app.command(rich_help_panel="Look")(workers)
app.command(rich_help_panel="Look")(wiring)


def main() -> None:
    """Run the command line in sys.argv and end the process."""
    sys.exit(ending(lambda: app(prog_name="callboard")))
