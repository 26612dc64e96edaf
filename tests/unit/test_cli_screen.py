"""What others wrote, in a terminal and in a log."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from callboard.runtime.cli.logs import LineFormatter
from callboard.runtime.cli.screen import printable, safe, table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, with ümlauts and 漢字", "plain text, with ümlauts and 漢字"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("right \u202e to left", r"right \u202e to left"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_a_character_that_a_terminal_could_act_on_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_table_takes_no_text_for_markup() -> None:
    made = table("[bold]name[/bold]")
    made.add_row(safe("[red]x[/red]"))
    output = io.StringIO()
    Console(file=output, markup=False, width=80).print(made)
    assert "[red]x[/red]" in output.getvalue()


def test_a_log_record_is_one_line_whatever_its_message_holds() -> None:
    line = formatted("job %s", "x\r\n2026-01-01T00:00:00.000Z INFO 1 forged: \x1b[2J")

    assert "\n" not in line
    assert line.endswith(r"job x\r\n2026-01-01T00:00:00.000Z INFO 1 forged: \x1b[2J")


def test_no_line_of_a_traceback_can_pass_for_a_record() -> None:
    try:
        raise ValueError("first\nforged: second \x1b[2J")
    except ValueError as error:
        lines = formatted("it failed", error=error).split("\n")

    assert lines[0].endswith("it failed")
    assert all(line.startswith("  | ") for line in lines[1:])
    assert lines[-1] == r"  | forged: second \x1b[2J"


def formatted(message: str, *args: object, error: BaseException | None = None) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    return LineFormatter().format(logging.LogRecord("test", logging.INFO, "test", 1, message, args, info))


def test_a_record_whose_arguments_do_not_fit_is_a_line_all_the_same() -> None:
    line = formatted("%d mails for\nINFO %s", "three")
    assert line.endswith(r"test: '%d mails for\nINFO %s' (its arguments do not fit: TypeError)")


def test_the_name_of_a_logger_and_a_stack_make_no_lines_that_pass_for_records() -> None:
    record = logging.LogRecord("a\nb", logging.INFO, "test", 1, "here", (), None)
    record.stack_info = "Stack:\r\nINFO"
    first, *stack = LineFormatter().format(record).splitlines()
    assert first.endswith(r" a\nb: here")
    assert stack == [r"  | Stack:\r", "  | INFO"]
