"""A scheduler in ASGI servers: around Starlette and FastAPI apps under uvicorn, and as their lifespan."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from callboard.runtime.scheduler import Scheduler

SOON = 60.0


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The address of a uvicorn in this loop; it has ended in order when the block has."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        async with asyncio.timeout(SOON):
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


async def get(address: str) -> Any:
    def read() -> Any:
        with urllib.request.urlopen(address, timeout=SOON) as answer:
            return json.load(answer)

    return await asyncio.to_thread(read)


def scheduled() -> tuple[Scheduler, list[asyncio.AbstractEventLoop]]:
    scheduler = Scheduler(grace_seconds=5)
    loops: list[asyncio.AbstractEventLoop] = []

    @scheduler.add_task("interval", seconds=1, id="tick")
    async def tick() -> None:
        loops.append(asyncio.get_running_loop())

    return scheduler, loops


def starlette_app(scheduler: Scheduler, **options: Any) -> Starlette:
    async def tasks(request: Request) -> JSONResponse:
        return JSONResponse([info.id for info in scheduler.get_task_infos()])

    def run(request: Request) -> JSONResponse:  # in a thread of the server's
        return JSONResponse(scheduler.run_task("tick"))

    return Starlette(routes=[Route("/tasks", tasks), Route("/run", run)], **options)


def fastapi_app(scheduler: Scheduler, **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/tasks")
    async def tasks() -> list[str]:
        return [info.id for info in scheduler.get_task_infos()]

    @app.get("/run")
    def run() -> str:
        return scheduler.run_task("tick")

    return app


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
@pytest.mark.parametrize("way", ["around", "lifespan", "middleware", "alone"])
async def test_tasks_run_from_the_servers_start_to_its_end(make: Callable[..., Any], way: str) -> None:
    scheduler, loops = scheduled()
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        told.append(f"started {scheduler.running}")
        yield
        told.append(f"stopped {scheduler.running}")

    app = make(scheduler, lifespan=scheduler.lifespan if way == "lifespan" else lifespan)
    if way == "middleware":
        app.add_middleware(scheduler.asgi)
    served_app = scheduler.asgi(app, handle_lifespan=way == "alone") if way in ("around", "alone") else app
    async with served(served_app) as address:
        assert await get(f"{address}/tasks") == ["tick"]
        assert (await get(f"{address}/run")).startswith("tick@manual-")
        async with asyncio.timeout(SOON):
            while len(loops) < 2:
                await asyncio.sleep(0.01)
        assert set(loops) == {asyncio.get_running_loop()}
    assert not scheduler.running
    assert told == (["started True", "stopped True"] if way in ("around", "middleware") else [])


async def told_to_start(app: Any) -> list[dict[str, Any]]:
    """What an app answers to a server that wants to start."""
    answers: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    with suppress(RuntimeError):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return answers


async def test_a_scheduler_that_cannot_start_tells_the_server_why() -> None:
    for handle_lifespan in (False, True):
        scheduler, _ = scheduled()
        scheduler.add_task(scheduled, "interval", seconds=1, executor="rocket")
        app = scheduler.asgi(starlette_app(scheduler), handle_lifespan=handle_lifespan)
        (answer,) = await told_to_start(app)
        assert answer["type"] == "lifespan.startup.failed"
        assert "no executor 'rocket'" in answer["message"]
        assert not scheduler.running


async def test_an_app_that_fails_to_start_takes_the_scheduler_down() -> None:
    scheduler, _ = scheduled()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    (answer,) = await told_to_start(scheduler.asgi(starlette_app(scheduler, lifespan=lifespan)))
    assert answer["type"] == "lifespan.startup.failed"
    assert "no database" in answer["message"]
    assert not scheduler.running
