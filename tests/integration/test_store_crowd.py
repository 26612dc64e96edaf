"""Eight processes at once do the same: one record for each id, one job for each deduplication id, one claim each."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from callboard.metadata.contract import Inspection, Store
from callboard.runtime.registry import make_store
from integration.crowd_member import COUNT, QUEUE
from mongo_space import MongoSpace
from redis_space import RedisSpace

MEMBERS = 8
PROGRAM = Path(__file__).with_name("crowd_member.py")


@pytest.mark.parametrize(
    "server", ["redis_url", "mongo_replica_url", pytest.param("mongo_url", marks=pytest.mark.soak)]
)
async def test_eight_processes_make_one_record_and_one_claim_of_each(
    request: pytest.FixtureRequest, server: str
) -> None:
    url = request.getfixturevalue(server)
    space: RedisSpace | MongoSpace = RedisSpace(url) if server == "redis_url" else MongoSpace(url)
    store = make_store(url, namespace=space.namespace)
    await store.open()
    try:
        answers = await asyncio.to_thread(_crowd, url, space.namespace)  # the store's connections need the loop
        for name, wanted in (("created", "id"), ("unique", "key"), ("claimed", "id")):
            counted = Counter(one for answer in answers for one in answer[name])
            assert counted == Counter(f"{wanted}-{n}" for n in range(COUNT))
        await _holds(store)
    finally:
        await store.close()
        await space.delete()


def _crowd(url: str, namespace: str) -> list[dict[str, list[str]]]:
    members = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), url, namespace, f"member-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(MEMBERS)
    ]
    try:
        for member in members:
            assert member.stdout is not None
            assert member.stdout.readline() == "ready\n"
        outputs = []
        for member in members:
            assert member.stdin is not None
            member.stdin.write("go\n")
            member.stdin.flush()
        for member in members:
            outputs.append(member.communicate(timeout=120)[0])
            assert member.returncode == 0
        return [json.loads(output) for output in outputs]
    finally:
        for member in members:
            member.kill()
            member.wait()


async def _holds(store: Store) -> None:
    inspection = store.get(Inspection)
    counts = (await inspection.counts([QUEUE]))[QUEUE]
    assert (counts.active, counts.waiting) == (COUNT, COUNT)
    assert await inspection.audit(QUEUE) == []
