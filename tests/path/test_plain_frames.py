"""A choice of the path's tests once more, with RabbitMQ spoken to through aiormq's own framing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from path.place import Errors, Place
from path.test_enqueue import (  # noqa: F401
    test_a_bulk_of_more_than_one_batch_keeps_its_order_and_runs_whole,
    test_a_call_of_a_task_becomes_a_job_that_runs_once_with_its_arguments,
    test_confirm_waits_for_the_broker_too,
)
from path.test_intake import (  # noqa: F401
    app,
    stranger,
    test_a_submission_becomes_a_job_that_runs,
    test_looking_takes_nothing_away,
    test_of_an_array_the_good_jobs_run_and_the_others_are_put_aside,
)
from path.test_order import test_a_job_of_higher_priority_overtakes_a_bulk_that_waits  # noqa: F401
from path.test_pause import (  # noqa: F401
    test_jobs_that_a_worker_had_already_received_run_after_resume_in_any_worker,
)
from path.test_results import (  # noqa: F401
    test_who_waits_for_a_result_is_woken_long_before_it_would_look_again,
)


@pytest.fixture
async def place(amqp_url: str, redis_url: str) -> AsyncIterator[Place]:
    place = Place(broker=f"{amqp_url}?frames=plain", store=redis_url)
    await place.prepare()
    errors = Errors(place)
    logging.getLogger().addHandler(errors)
    try:
        yield place
    finally:
        logging.getLogger().removeHandler(errors)
        await place.clean()
    assert place.errors == []
