"""The benchmark. `tests/bench/run` makes the environment and starts this; see `--help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import growth
import machine
import report
from contestants import EVERY
from msgspec import structs
from pymongo import MongoClient
from rounds import FULL, QUICK, Results, compare
from scene import Scene

from servers import MongoServer, RabbitMQServer, RedisServer

FSYNC = "everysec"
MONGO_TIMES = 4.0  # at most so much is wanted beside the peers where jobs are kept in MongoDB, journaled


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Callboard beside dramatiq, taskiq and plain aio-pika, on a Redis and a RabbitMQ of their own.",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, no growth: under two minutes")
    parser.add_argument("--rounds", type=int, help="how often each measurement is repeated (5; quick: 1)")
    parser.add_argument("--json", action="store_true", help="every value of every round, in place of the table")
    parser.add_argument(
        "--store", choices=["redis", "mongo", "motor"], default="redis", help="what Callboard keeps its jobs in (redis)"
    )
    parser.add_argument(
        "--standalone", action="store_true", help="a MongoDB of its own, in place of a replica set of one"
    )
    parser.add_argument("--no-growth", action="store_true", help="leave out what needs many jobs kept or waiting")
    return parser.parse_args()


def kept_in(store: str, folder: Path, *, replica_set: bool) -> AbstractContextManager[MongoServer | None]:
    return nullcontext() if store == "redis" else MongoServer(folder / "mongo", replica_set=replica_set)


def mongo_version(mongo: MongoServer) -> str:
    with MongoClient[dict[str, object]](mongo.url) as client:
        return str(client.server_info()["version"])


def drivers_beside(mongo: MongoServer) -> list[str]:
    from mongo_drivers import driver_table  # needs Motor, which a run on Redis does without

    say("MongoDB by each driver")
    return asyncio.run(driver_table(mongo.url, mongo.pid))


def run(given: argparse.Namespace) -> dict[str, object]:
    rounds = given.rounds or (1 if given.quick else 5)
    results = Results()
    for contestant in EVERY:
        contestant.prepare()
    versions = [contestant.versions() for contestant in EVERY]
    about = machine.description()
    with (
        tempfile.TemporaryDirectory(prefix="callboard-bench-") as name,
        RedisServer(Path(name) / "redis", appendfsync=FSYNC) as store,
        RabbitMQServer(Path(name) / "rabbitmq") as broker,
        kept_in(given.store, Path(name), replica_set=not given.standalone) as mongo,
    ):
        scene = Scene(Path(name), broker=broker, store=store, mongo=mongo, driver=given.store)
        redis, rabbitmq = scene.redis.info("server")["redis_version"], broker.ctl("version").strip()
        servers = f"Redis {redis} (appendonly, appendfsync {FSYNC}), RabbitMQ {rabbitmq} (classic queues)"
        if mongo is not None:
            servers += (
                f", MongoDB {mongo_version(mongo)} ({'standalone' if given.standalone else 'a replica set of one'},"
                f" journaled) by {scene.driver} for Callboard"
            )
        compare(scene, rounds, QUICK if given.quick else FULL, results, say)
        if not given.quick and not given.no_growth:
            growth.other_queue(scene, growth.FULL, results, say)
            scene.forget()
            growth.grow(scene, growth.FULL, results, say)
        drivers = [] if mongo is None else drivers_beside(mongo)
    found = [*report.ratios(results.figures), *growth.growth_ratios(results.figures)]
    if mongo is not None:
        found = [
            one if one.at_least is None else structs.replace(one, at_least=min(one.at_least, MONGO_TIMES))
            for one in found
        ]
    return {
        "machine": about,
        "servers": servers,
        "versions": versions,
        "rounds": rounds,
        "figures": results.figures,
        "drivers": drivers,
        "ratios": found,
    }


def main() -> None:
    given = options()
    started = time.monotonic()
    done = run(given)
    figures, found = done["figures"], done["ratios"]
    assert isinstance(figures, dict)
    assert isinstance(found, list)
    if given.json:
        named = [
            {"name": one.name, "values": one.values, "target": one.target, "reached": one.reached} for one in found
        ]
        print(json.dumps({**done, "ratios": named}, indent=1))
        return
    print(f"{done['machine']}; {done['servers']}; {'; '.join(done['versions'])}.")  # type: ignore[arg-type]
    print(f"Medians of {done['rounds']} rounds (least..most); {time.monotonic() - started:.0f} s in all.\n")
    tables = [report.table(figures), *([growth.growth_table(figures)] if "kept" in figures else [])]
    drivers = [done["drivers"]] if done["drivers"] else []
    text = "\n\n".join("\n".join(lines) for lines in [*tables, *drivers, report.ratio_table(found)])
    # The peers keep their results in Redis, whatever Callboard's jobs are kept in.
    print(text if given.store == "redis" else text.replace("Redis", "the store"))


if __name__ == "__main__":
    main()
