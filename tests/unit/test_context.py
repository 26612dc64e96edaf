"""What a context says of its place."""

from __future__ import annotations

import pytest

from callboard import ConfigurationError, Context


def made() -> Context:
    return Context(
        job_id="job-1", queue="mail", task="send", attempt=1, dispatch=1, fence=1, worker="w1", meta={},
        report=lambda value: None, lease_is_certain=lambda: True,
    )  # fmt: skip


def test_a_context_answers_like_the_dict_of_aioq() -> None:
    context = made()
    assert (context["worker_id"], context["job_id"], context["queue"]) == ("w1", "job-1", "mail")
    for unknown in ("redis", "_report"):
        with pytest.raises(KeyError, match=rf"{unknown}.*worker_id.*ctx\.app"):
            context[unknown]


def test_a_context_in_a_process_of_its_own_has_no_app_and_says_what_to_do() -> None:
    context = made()
    assert context.worker_id == "w1"
    with pytest.raises(ConfigurationError, match=r"ctx\.app of task 'send'.*process of its own"):
        _ = context.app
