"""Run actors of an app until SIGTERM: `python -m faults.run_actors --app package.module:app worker delayed-scanner`."""

from __future__ import annotations

import argparse
import asyncio
import logging

from callboard.runtime.actor import Options
from callboard.runtime.deployment import Deployment
from callboard.runtime.registry import find_actor, find_app


async def run(arguments: argparse.Namespace) -> None:
    deployment = Deployment(
        find_app(arguments.app),
        [find_actor(kind) for kind in arguments.kinds],
        Options(concurrency=arguments.concurrency),
    )
    deployment.stop_on_signals()
    await deployment.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", required=True)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("kinds", nargs="+")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(run(parser.parse_args()))
