from __future__ import annotations

import asyncio

import pytest

from callboard import Callboard, ConfigurationError, Queue
from callboard.runtime.testing import running
from path.place import Place


async def test_an_app_that_is_not_open_says_how_to_open_it(place: Place) -> None:
    app = place.app()

    @app.task(name="t")
    async def t() -> None: ...

    with pytest.raises(ConfigurationError, match="the app is not open: use `async with app:`"):
        await t.enqueue()
    with pytest.raises(ConfigurationError, match="the app is not open"):
        await app.queue("default").count()


async def test_openings_may_nest_and_the_last_close_disconnects(place: Place) -> None:
    app = place.app()
    async with app:
        connections = app.connections
        async with app:
            await app.open()
            assert app.connections is connections
            await app.close()
            assert app.connections is connections
        await app.queue("default").add("t")
        assert connections.broker.connected
    assert not connections.broker.connected
    with pytest.raises(ConfigurationError, match="the app is not open"):
        _ = app.connections
    await place_audit(place)


async def test_an_app_can_be_opened_again_after_it_was_closed(place: Place) -> None:
    app = place.app()

    @app.task(name="t")
    async def t() -> str:
        return "ran"

    for _ in range(2):
        async with app:
            job = await t.enqueue()
            async with running(app):
                assert await job.result(5) == "ran"
    await place_audit(place)


async def test_a_close_without_an_open_is_refused_and_breaks_nothing(place: Place) -> None:
    app = place.app()
    with pytest.raises(ConfigurationError, match=r"one close\(\) for each open\(\)"):
        await app.close()
    async with app:
        await app.queue("default").add("t")
    with pytest.raises(ConfigurationError, match=r"one close\(\) for each open\(\)"):
        await app.close()
    await place_audit(place)


async def test_apps_opened_at_the_same_time_connect_once(place: Place) -> None:
    app = place.app()
    await asyncio.gather(*(app.open() for _ in range(5)))
    connections = app.connections
    for _ in range(5):
        assert app.connections is connections
        await app.close()
    with pytest.raises(ConfigurationError):
        _ = app.connections


async def test_closing_sends_what_was_enqueued_just_before(place: Place) -> None:
    async with place.open() as app:
        async with app:
            await asyncio.gather(*(app.queue("default").add("t", [i]) for i in range(300)))
        counts = await app.queue("default").queue_counts()
        assert counts.waiting == 300
        async with asyncio.timeout(5):
            while counts.unpublished:
                await asyncio.sleep(0.01)
                counts = await app.queue("default").queue_counts()
        depth = await app.connections.broker.depth(app.connections.names.job_queue("default"))
        assert depth is not None
        assert depth.ready > 0


async def test_a_queue_made_by_name_has_an_app_of_its_own_from_the_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLBOARD_BROKER", place.broker)
    monkeypatch.setenv("CALLBOARD_STORE", place.store)
    monkeypatch.setenv("CALLBOARD_NAMESPACE", place.namespace)
    async with Queue("emails") as queue:
        assert queue.app.settings.namespace == place.namespace
        job_id = await queue.add("send", ["a@b.c"])
        assert await queue.get_job_state(job_id) == "waiting"
        await place.audit(queue.app)


@pytest.mark.parametrize("place", ["rabbitmq+redis"], indirect=True)
async def test_jobs_outlive_the_app_that_made_them(place: Place) -> None:
    async with place.open() as app:
        job_id = await app.queue("emails").add("send", ["a@b.c"])
    async with place.open() as app:

        @app.task(queue="emails", name="send")
        async def send(to: str) -> str:
            return f"sent to {to}"

        async with running(app):
            assert await app.queue("emails").handle(job_id).result(5) == "sent to a@b.c"


async def test_an_app_gives_the_same_queue_for_the_same_name(app: Callboard) -> None:
    assert app.queue("emails") is app.queue("emails")


async def test_a_worker_without_a_task_and_without_a_queue_is_refused_at_once(place: Place) -> None:
    app = place.app()
    with pytest.raises(ConfigurationError, match="its worker has no queue to serve; name one with --queue"):
        async with asyncio.timeout(5), running(app, actors=["worker"]):
            pass


async def place_audit(place: Place) -> None:
    async with place.open():
        pass
