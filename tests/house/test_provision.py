"""Where a test's server comes from: the order is given, container, local; each way passed over leaves its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision import RABBITMQ, REDIS, NoServer, Provided, Service, provide
from servers import ProgramMissing, ServerFailed

NO_ENGINE = {"CALLBOARD_TEST_SERVERS": "local"}


def not_installed(folder: Path) -> Provided:
    raise ProgramMissing("redis-server")


WITHOUT_PROGRAM = Service(
    name="Redis",
    given="CALLBOARD_TEST_REDIS",
    image_variable="REDIS_IMAGE",
    image="callboard-tests/no-such-image:0",
    port=6379,
    url="redis://{host}:{port}/0",
    answers=lambda host, port: True,
    local=not_installed,  # type: ignore[arg-type]
)


def test_a_given_address_is_used_as_it_is(redis_url: str, tmp_path: Path) -> None:
    provided = provide(REDIS, tmp_path, {"CALLBOARD_TEST_REDIS": redis_url})

    assert provided.url == redis_url
    assert provided.origin.startswith("given: redis://")
    assert list(tmp_path.iterdir()) == []


def test_a_given_address_without_a_server_is_an_error_and_never_replaced(tmp_path: Path) -> None:
    given = {"CALLBOARD_TEST_AMQP": "amqp://someone:swordfish@127.0.0.1:9/"}

    with pytest.raises(ServerFailed, match="CALLBOARD_TEST_AMQP names amqp://127") as refused:
        provide(RABBITMQ, tmp_path, given)

    assert "swordfish" not in str(refused.value)


def test_a_missing_program_and_a_missing_image_are_both_named(tmp_path: Path) -> None:
    with pytest.raises(NoServer) as missing:
        provide(WITHOUT_PROGRAM, tmp_path, {})

    engine, program = missing.value.reasons
    assert "callboard-tests/no-such-image:0" in engine or "no Docker engine" in engine
    assert program == "program 'redis-server' is not installed"


def test_the_ways_can_be_narrowed_to_one(tmp_path: Path) -> None:
    with pytest.raises(NoServer) as missing:
        provide(WITHOUT_PROGRAM, tmp_path, NO_ENGINE)
    assert len(missing.value.reasons) == 1

    with pytest.raises(ServerFailed, match="must be one of docker, local"):
        provide(WITHOUT_PROGRAM, tmp_path, {"CALLBOARD_TEST_SERVERS": "podman"})


def test_the_servers_of_this_run_answer(redis_url: str, amqp_url: str) -> None:
    assert provide(REDIS, Path(), {"CALLBOARD_TEST_REDIS": redis_url}).url == redis_url
    assert provide(RABBITMQ, Path(), {"CALLBOARD_TEST_AMQP": amqp_url}).url == amqp_url
