"""X4: messages that are too large, and many large ones at once.

Injects: bodies of 1, 16, 100 and 128 MiB, 10,000 fields of headers, and 160 submissions of 1 MiB while the intake holds
64 at a time. Bites: RabbitMQ confirms each of them, so that they reach the intake.
Passes: each one is in `callboard.dead` with its size and the limit, of its bytes no more than 64 KiB; the intake stays
within its memory setting and 64 MB above what it began with; good ones run beside them; no connection is lost.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults.door import QUEUE, Door, good, resident, unfinished
from integration.raw_amqp import HEADERS, RawPublisher, table
from servers import RabbitMQServer

MEGABYTE = 1024 * 1024
SIZES = [1 * MEGABYTE + 1, 16 * MEGABYTE, 100 * MEGABYTE, 128 * MEGABYTE]
LARGE = 160
MEMORY = 64 * MEGABYTE  # the setting intake_memory
ABOVE = MEMORY + 64_000_000


@pytest.mark.slow
async def test_large_messages_cost_bounded_memory_and_are_refused_with_size_and_limit(
    tmp_path: Path, seed: int, redis_url: str, own_rabbitmq: RabbitMQServer
) -> None:
    async with Door(tmp_path, seed=seed, store=redis_url, broker=own_rabbitmq.url, shares_broker=False) as door:
        door.start()
        await door.up()
        intake = door.fleet["intake-1"]
        before = resident(intake.pid)
        goods = [f"good-{number}" for number in range(100)]
        await door.submit(map(good, goods[:50]))
        for size in SIZES:
            await door.submit([b'{"task":"' + b"x" * (size - 9)])
        fields = b"".join(b"\x05%05db\x01" % number for number in range(10_000))
        async with RawPublisher(own_rabbitmq.url) as raw:
            await raw.publish(
                QUEUE, good("fields"), flags=HEADERS, properties=table(fields), exchange=door.names.submit
            )
        padding = "z" * (MEGABYTE // 8)
        large = [
            json.dumps({"task": "work", "id": f"large-{number}", "args": [padding] * 7, "priority": 0}).encode()
            for number in range(LARGE)
        ]
        await door.submit(large)
        await door.submit(map(good, goods[50:]))
        jobs, letters = await door.settled(ids=goods, letters=len(SIZES) + 1 + LARGE, seconds=240)

        peak = resident(intake.pid, peak=True)
        print(f"intake: {before / 1e6:.0f} MB before, at most {peak / 1e6:.0f} MB")
        by_size = {letter.size: letter for letter in letters if letter.reason == "too-large"}
        assert sorted(by_size) == SIZES
        for size, letter in by_size.items():
            assert f"takes {size} bytes, the limit is {MEGABYTE}" in letter.detail
            assert len(letter.body) == 64 * 1024
        reasons = [letter.reason for letter in letters]
        assert reasons.count("undecodable-properties") == 1
        # A letter that the slow broker did not confirm in time is published again, under one id.
        assert len({letter.id for letter in letters if letter.reason == "invalid-member"}) == LARGE
        assert unfinished(jobs, goods) == []
        assert peak < before + ABOVE
        assert door.connections_lost() == []
        assert door.fleet.complaints() == []
        assert all(member.running and member.lives == 1 for member in door.fleet)
