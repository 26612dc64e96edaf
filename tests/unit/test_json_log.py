"""One JSON object a line, whatever is logged."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from callboard import ConfigurationError, Context
from callboard.runtime.cli.failures import logged_ending
from callboard.runtime.context import RUNNING
from callboard.runtime.json_log import MAX_EXCEPTION, MAX_MESSAGE, JsonFormatter

HOSTILE = 'a\r\n{"level": "error"}\x1b]0;\x07\x00\x7f\x9b31m\u202e\u2028é\ud800"\\'


def context(**changes: Any) -> Context:
    given: dict[str, Any] = {
        "job_id": "job-1", "queue": "mail", "task": "send", "attempt": 2, "dispatch": 1, "fence": 1, "worker": "w1",
        "meta": {}, "report": lambda value: None, "lease_is_certain": lambda: True,
    }  # fmt: skip
    return Context(**(given | changes))


class Log:
    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.logger = logging.Logger("shop")
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(JsonFormatter())
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = self.stream.getvalue()
        assert text.isascii()
        assert all(character.isprintable() or character == "\n" for character in text)
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    yield Log()
    RUNNING.set(None)


def test_a_record_has_time_level_logger_and_message(log: Log) -> None:
    record = logging.makeLogRecord({"name": "shop", "levelname": "INFO", "msg": "%d sent", "args": (3,), "process": 7})
    record.created = 1_790_000_000.1234
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "2026-09-21T14:13:20.123Z",
        "level": "info",
        "logger": "shop",
        "process": 7,
        "message": "3 sent",
    }


async def test_a_line_of_a_run_names_its_job_wherever_it_was_written(log: Log) -> None:
    RUNNING.set(context(traceparent=f"00-{'a' * 32}-{'b' * 16}-01"))
    log.logger.info("here")
    await asyncio.to_thread(log.logger.info, "in a thread")
    RUNNING.set(None)
    log.logger.info("after it")

    about = {"job_id": "job-1", "queue": "mail", "task": "send", "attempt": 2, "trace_id": "a" * 32}
    here, thread, after = log.lines
    for line in (here, thread):
        assert {name: line[name] for name in about} == about
    assert not set(about) & set(after)


def test_the_trace_and_span_that_are_current_come_before_that_of_the_job(log: Log) -> None:
    log.handler.setFormatter(JsonFormatter(lambda: ("c" * 32, "d" * 16)))
    RUNNING.set(context(traceparent=f"00-{'a' * 32}-{'b' * 16}-01"))
    log.logger.info("here")
    (line,) = log.lines
    assert (line["trace_id"], line["span_id"]) == ("c" * 32, "d" * 16)


def test_hostile_text_stays_inside_its_member(log: Log) -> None:
    RUNNING.set(context(job_id=HOSTILE, queue=HOSTILE, task=HOSTILE))
    log.logger.warning("got %s", HOSTILE)
    log.logger.getChild(HOSTILE)
    (line,) = log.lines
    assert line["level"] == "warning"
    assert line["message"].startswith('got a\r\n{"level": "error"}\x1b]0;\x07\x00\x7f\x9b')
    assert line["message"].endswith('é\\ud800"\\')  # half a surrogate pair is no text
    assert line["job_id"].startswith("a\r\n")


def test_an_exception_is_one_member_with_its_lines_and_bounded(log: Log) -> None:
    try:
        raise LookupError(HOSTILE + "x" * 1_000_000 + "the end")
    except LookupError:
        log.logger.exception("y" * 100_000, stack_info=True)
    (line,) = log.lines
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("the end")
    assert len(line["exception"]) <= MAX_EXCEPTION + 10  # escapes of what is no text
    assert len(line["message"]) <= MAX_MESSAGE
    assert "Stack (most recent call last)" in line["stack"]
    assert len(log.stream.getvalue()) < 8 * (MAX_EXCEPTION + MAX_MESSAGE)


class Spiteful:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_arguments_that_do_not_fit_cost_neither_the_line_nor_its_neighbours(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.logger.info("%d", "three")
    log.logger.info("%s", Spiteful())
    log.logger.info("next", extra={"job": {"any": object()}, "attempt": [1] * 10_000})
    log.logger.info(Spiteful(), extra={"task": Spiteful(), "attempt": 10**5000})
    wrong, spiteful, after, last = log.lines
    assert last["message"] == "a Spiteful (its arguments do not fit: RuntimeError)"
    assert last["task"] == "a Spiteful (RuntimeError)"
    assert last["attempt"] == "a int (ValueError)"
    assert wrong["message"] == "'%d' (its arguments do not fit: TypeError)"
    assert "RuntimeError" in spiteful["message"]
    assert after["message"] == "next"
    assert len(after["attempt"]) <= 400
    assert capsys.readouterr().err == ""


def test_the_lines_of_the_tasks_own_logger_name_its_job_in_threads_of_its_own_too(log: Log) -> None:
    adapter = context().logger
    adapter.logger = log.logger
    adapter.info("here")
    (line,) = log.lines
    assert (line["job_id"], line["queue"], line["attempt"]) == ("job-1", "mail", 2)


@pytest.mark.parametrize(
    ("error", "code", "level"),
    [(ConfigurationError("wrong"), 2, "error"), (KeyError("our own fault"), 1, "critical")],
)
def test_what_ends_a_process_is_a_record(
    error: Exception, code: int, level: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert logged_ending(fail) == code
    (line,) = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert line["level"] == level
    assert ("exception" in line) == (level == "critical")
    assert capsys.readouterr().err == ""


def test_an_end_that_was_told_already_is_not_told_again() -> None:
    def leave() -> None:
        raise typer.Exit(70)

    with pytest.raises(typer.Exit):
        logged_ending(leave)


def test_the_json_log_needs_nothing_of_opentelemetry() -> None:
    assert JsonFormatter.__module__ in sys.modules
    assert "opentelemetry" not in vars(sys.modules[JsonFormatter.__module__])
