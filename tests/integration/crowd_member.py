"""One process of a crowd: enqueues and claims what all the others do too, and prints what it was answered.

python crowd_member.py STORE_URL NAMESPACE MEMBER
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from callboard.metadata.contract import Admission, Jobs, Ticket, Verdict, Workers
from callboard.metadata.job import Deduplication, Keep, NewJob
from callboard.runtime.clock import SystemClock
from callboard.runtime.registry import make_store

COUNT, BATCH, QUEUE = 1_000, 50, "crowd"


async def main(url: str, namespace: str, member: str) -> dict[str, list[str]]:
    store = make_store(url, namespace=namespace)
    await store.open()
    jobs, chooser, now = store.get(Jobs), random.Random(member), SystemClock().now()
    await store.get(Workers).heartbeat(member, [QUEUE], info=b"", now=now)
    print("ready", flush=True)
    sys.stdin.readline()

    def batches() -> list[list[int]]:
        numbers = list(range(COUNT))
        chooser.shuffle(numbers)
        return [numbers[start : start + BATCH] for start in range(0, COUNT, BATCH)]

    def new(id: str, payload: str, key: str | None = None) -> NewJob:
        return NewJob(
            id=id, queue=QUEUE, task="task", payload=payload.encode(), created_at=now,
            deduplication=None if key is None else Deduplication(id=key),
        )  # fmt: skip

    created: list[str] = []
    for batch in batches():
        answers = await jobs.enqueue([new(f"id-{n}", member) for n in batch], now=now, grace=60_000)
        created += [answer.id for answer in answers if answer.admission is Admission.CREATED]
    unique: list[str] = []
    for batch in batches():
        answers = await jobs.enqueue([new(f"{member}-{n}", member, f"key-{n}") for n in batch], now=now, grace=60_000)
        unique += [
            f"key-{n}" for n, answer in zip(batch, answers, strict=True) if answer.admission is Admission.CREATED
        ]
    claimed: list[str] = []
    for batch in batches():
        tickets = [Ticket(f"id-{n}", 1) for n in batch]
        verdicts = await jobs.claim(QUEUE, member, tickets, now=now, keep_expired=Keep())
        claimed += [answer.id for answer in verdicts if answer.verdict is Verdict.CLAIMED]
    await store.close()
    return {"created": created, "unique": unique, "claimed": claimed}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
