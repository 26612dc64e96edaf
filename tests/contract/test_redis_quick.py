"""The quick parts of the Redis scripts: whatever a call holds, it does and answers the same with and without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import msgspec
import pytest
from redis import Redis

from callboard.metadata.redis.scripts import Script, read_scripts
from redis_space import RedisSpace

START = 1_700_000_000_000  # ms; long before the server's clock
IDS = [f"job-{number}" for number in range(60)]
OWNERS = ["a" * 32, "b" * 32, "no row"]
FENCE = 4  # its place in a record: made of the server's clock, so no two calls agree
KEEP = (3_600_000, 40, "")
ENDINGS = ["completed"] * 12 + ["failed", "retry", "release", "park", "cancelled"]


class Calls:
    """A random life of jobs, mostly ordinary: by the second half hardly any batch is."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = START
        self.strange = 0.0  # how likely an entry is out of the ordinary

    def next(self) -> tuple[str, Any]:
        self.now += self.random.choice((0, 0, 1, 5, 1000))
        self.strange = min(0.3, self.strange + 0.002)
        name = self.random.choice(("enqueue", "enqueue", "claim", "claim", "finish", "finish", "published", "rare"))
        return getattr(self, f"_{name}")()

    def _odd(self) -> bool:
        return self.random.random() < self.strange

    def _ids(self) -> list[str]:
        if self._odd():
            return self.random.choices(IDS, k=self.random.randint(1, 8))  # the same one twice, perhaps
        first = self.random.randrange(len(IDS))
        return IDS[first : first + self.random.randint(1, 12)]

    def _enqueue(self) -> tuple[str, Any]:
        jobs = []
        for id in self._ids():
            run_at = self.now + self.random.choice((-1000, 1000)) if self._odd() else None
            expires_at = self.now + self.random.choice((1, 60_000)) if self._odd() else None
            wanted = (f"d{self.random.randrange(3)}", None, False, True) if self._odd() else None
            created_at = self.now - self.random.randrange(3)
            payload = f"payload of {id}, {self._odd()}"
            jobs.append((id, "t", payload, 5 + self._odd(), created_at, run_at, expires_at, wanted))
        return "enqueue", (self.now, 1000, jobs)

    def _published(self) -> tuple[str, Any]:
        return "published", (self.now, [(id, 1 + self._odd()) for id in self._ids()])

    def _claim(self) -> tuple[str, Any]:
        tickets = [(id, 1 + self._odd(), self.now if self._odd() else None, None) for id in self._ids()]
        return "claim", (self.now, self._owner(), KEEP, tickets, self.random.choice((1, 2)))

    def _finish(self) -> tuple[str, Any]:
        owner = self._owner()
        return "finish", (self.now, 1000, [self._outcome(id, owner) for id in self._ids()])

    def _outcome(self, id: str, owner: str) -> tuple[Any, ...]:
        ending = self.random.choice(ENDINGS) if self._odd() else "completed"
        result = None if self._odd() else "result"
        error = "error" if ending in ("failed", "retry") else None
        history = None if self._odd() else f"history of {id}"
        run_at = self.now + 50 if self._odd() else None
        keep = (None, None, "own") if self._odd() else KEEP
        return (
            id,
            1 + self._odd(),
            self._owner() if self._odd() else owner,
            ending,
            result,
            error,
            history,
            run_at,
            keep,
        )

    def _rare(self) -> tuple[str, Any]:
        if not self._odd():
            return "heartbeat", (self.random.choice(OWNERS[:2]), "info")
        match self.random.randrange(5):
            case 0:
                return "cancel", (self.now, KEEP, [(id,) for id in self._ids()])
            case 1:
                return "retry", (self.now, 1000, [(id,) for id in self._ids()])
            case 2:
                return "remove", (self.now, [(id,) for id in self._ids()])
            case 3:
                return "take_due", (self.now, 1000, 100, 0)
            case _:
                return "take_unpublished", (self.now + 5000, 1000, 100)

    def _owner(self) -> str:
        return self.random.choice(OWNERS) if self._odd() else OWNERS[0]


@pytest.fixture
def server(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as server:
        yield server


def kept(server: Redis, prefix: str) -> dict[str, Any]:
    """Everything under a prefix, without the fences."""
    found: dict[str, Any] = {}
    for key in server.scan_iter(match=f"{prefix}*", count=1000):
        name = key.decode().removeprefix(prefix)
        match server.type(key):
            case b"hash":
                rows = server.hgetall(key)
                found[name] = {id: unfenced(row) for id, row in rows.items()} if name == "record" else rows
            case b"zset":
                found[name] = dict(server.zrange(key, 0, -1, withscores=True))
            case other:
                found[name] = other
    return found


def unfenced(row: bytes) -> list[Any]:
    fields: list[Any] = msgspec.msgpack.decode(row)
    return [*fields[:FENCE], *fields[FENCE + 1 :]]


def unclocked(name: str, answer: Any) -> Any:
    if name == "claim" and isinstance(answer, list):
        return [None if place % 6 == 1 else value for place, value in enumerate(answer)]
    return None if name == "take_due" else answer


def is_quick(script: Script, plain: Mapping[str, Script]) -> bool:
    return script.text != plain[script.name].text


@pytest.mark.parametrize("seed", range(4))
def test_the_quick_parts_change_nothing(server: Redis, redis_url: str, seed: int) -> None:
    space = RedisSpace(redis_url)
    quick, plain = read_scripts(), read_scripts(quick=False)
    assert {name for name, script in quick.items() if is_quick(script, plain)} == {"enqueue", "claim", "finish"}
    places = {f"{space.namespace}-quick:{{q}}:": quick, f"{space.namespace}-plain:{{q}}:": plain}
    calls, seen = Calls(seed), Counter[Any]()
    try:
        for _ in range(400):
            name, arguments = calls.next()
            packed = msgspec.msgpack.encode(arguments)
            answers = []
            for prefix, scripts in places.items():
                script = server.register_script(scripts[name].text)
                answers.append(unclocked(name, script(keys=[prefix], args=[packed])))
            assert answers[0] == answers[1], (name, arguments)
            if isinstance(answers[0], list):
                seen.update(word for word in answers[0] if isinstance(word, bytes))
        one, other = (kept(server, prefix) for prefix in places)
        assert one == other
        assert {b"created", b"existing", b"claimed", b"taken", b"stale", b"done", b"refused", b"recorded"} <= set(seen)
    finally:
        for prefix in places:
            for key in server.scan_iter(match=f"{prefix}*", count=1000):
                server.delete(key)


def test_an_ordinary_job_needs_nothing_but_the_quick_parts(server: Redis, redis_url: str) -> None:
    prefix = f"{RedisSpace(redis_url).namespace}:{{q}}:"
    shared = next(iter(read_scripts(quick=False).values())).text.partition("\n-- What the scripts share")[2][:200]
    ids = [f"job-{number}" for number in range(20)]
    owner = OWNERS[0]
    ends = [(id, 1, owner, "completed", "result", None, "history", None, KEEP) for id in ids]
    server.hset(f"{prefix}beats", owner, "1")
    try:
        for name, arguments, answered in (
            ("enqueue", (START, 1000, [(id, "t", "payload", 5, START, None, None, None) for id in ids]), b"created"),
            ("published", (START, [(id, 1) for id in ids[:10]]), None),
            ("claim", (START, owner, KEEP, [(id, 1, START, None) for id in ids], 1), b"claimed"),
            ("finish", (START, 1000, ends), b"done"),
        ):
            text = read_scripts()[name].text
            quick = text.partition(shared)[0] if answered else text
            assert not answered or len(quick) < len(text)
            answer = server.eval(quick, 1, prefix, msgspec.msgpack.encode(arguments))
            assert not answered or answer.count(answered) == len(ids)
    finally:
        for key in server.scan_iter(match=f"{prefix}*", count=1000):
            server.delete(key)
