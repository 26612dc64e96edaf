"""Read everything about a queue and name what is wrong. Not atomic: for a queue that nobody works on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..job import Job, Outbox, State
from .connection import RedisConnection
from .rows import INDEXES, read_job

SCAN_COUNT = 1000

_raw_fields = msgspec.msgpack.Decoder(list[msgspec.Raw])  # of a schedule: its texts are bytes of any kind

_FIXED = {
    b"record", b"payload", b"result", b"error", b"progress", b"history", b"deduplication", b"windows", b"tombs",
    b"buried", b"marks", b"beats", b"infos", b"dead", b"paused", b"surplus",
    b"schedule", b"schedules", b"runs", b"standing",
}  # fmt: skip
_JOB_INDEXES = {b"waiting", b"outbox", b"held", b"delayed", b"children", b"expire"}
_JOB_INDEX_PREFIXES = (b"sent:", b"active:", b"final:", b"kept:", b"cancels:")
_DETAILS = (b"payload", b"result", b"error", b"progress")


class Contents(Struct, frozen=True):
    """Keys without their prefix: hashes as they are, sorted sets as member -> score."""

    hashes: Mapping[bytes, Mapping[bytes, bytes]]
    indexes: Mapping[bytes, Mapping[bytes, float]]
    others: Sequence[bytes]

    def hash(self, name: bytes) -> Mapping[bytes, bytes]:
        return self.hashes.get(name, {})

    def index(self, name: bytes) -> Mapping[bytes, float]:
        return self.indexes.get(name, {})


async def audit(connection: RedisConnection, queue: str) -> Sequence[str]:
    contents = await _read(connection, connection.keys.of_queue(queue))
    return [
        *_keys(contents),
        *_records(queue, contents),
        *_details(contents),
        *_deduplications(contents),
        *_schedules(contents),
    ]


async def _read(connection: RedisConnection, home: str) -> Contents:
    prefix = home.encode()
    hashes: dict[bytes, dict[bytes, bytes]] = {}
    indexes: dict[bytes, dict[bytes, float]] = {}
    others: list[bytes] = []
    for key in await _scan(connection, home):
        name = key.removeprefix(prefix)
        kind = await connection.command_near(home, "TYPE", key)
        if kind in (b"hash", "hash"):
            hashes[name] = await connection.command_near(home, "HGETALL", key)
        elif kind in (b"zset", "zset"):
            flat = await connection.command_near(home, "ZRANGE", key, 0, -1, "WITHSCORES")
            indexes[name] = {member: float(score) for member, score in zip(flat[::2], flat[1::2], strict=True)}
        else:
            others.append(name)
    return Contents(hashes, indexes, others)


async def _scan(connection: RedisConnection, home: str) -> Sequence[bytes]:
    prefix = home.encode()
    pattern = b"".join(b"\\" + bytes([byte]) if byte in b"\\*?[]^-" else bytes([byte]) for byte in prefix) + b"*"
    found: set[bytes] = set()
    cursor = 0
    while True:  # ends: SCAN visits each slot of the keyspace once
        cursor, keys = await connection.command_near(home, "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
        cursor = int(cursor)
        found.update(keys)
        if cursor == 0:
            return sorted(found)


def _is_job_index(name: bytes) -> bool:
    return name in _JOB_INDEXES or name.startswith(_JOB_INDEX_PREFIXES)


def _keys(contents: Contents) -> Iterator[str]:
    for name in [*contents.hashes, *contents.indexes, *contents.others]:
        if name not in _FIXED and not _is_job_index(name):
            yield f"the key {name!r} belongs to nothing"


def _records(queue: str, contents: Contents) -> Iterator[str]:
    found: dict[bytes, set[bytes]] = {id: set() for id in contents.hash(b"record")}
    for name, members in contents.indexes.items():
        if _is_job_index(name):
            for id in members:
                if id not in found:
                    yield f"{name!r} names {id!r}, of which there is no record"
                else:
                    found[id].add(name)
    for id, packed in contents.hash(b"record").items():
        fields = msgspec.msgpack.decode(packed)
        job = read_job(queue, id.decode(), (packed, b"", None, None, ()))
        assert job is not None
        wanted = set(_belongs(job, fields))
        if found[id] - {b"expire"} != wanted:
            yield f"{id!r} is {job.state} and in {sorted(found[id])} instead of {sorted(wanted)}"
        yield from _misplaced(job, id, contents)


def _belongs(job: Job, fields: Sequence[Any]) -> Iterator[bytes]:
    """The indexes that a record must be in; `expire` depends on the keep it ended with."""
    if job.state is State.ACTIVE:
        yield f"active:{job.owner}".encode()
        if job.cancel_requested:
            yield f"cancels:{job.owner}".encode()
        return
    yield INDEXES[job.state].encode()
    if job.state is State.WAITING:
        names = {Outbox.DUE: "outbox", Outbox.SENT: f"sent:{job.priority}", Outbox.HELD: "held", Outbox.NONE: "nothing"}
        yield names[job.outbox].encode()
    elif job.state.final:
        yield f"kept:{job.state}:{fields[17]}".encode()


def _misplaced(job: Job, id: bytes, contents: Contents) -> Iterator[str]:
    if job.state is State.ACTIVE and (job.owner or "").encode() not in contents.hash(b"beats"):
        yield f"{id!r} is active, but its owner {job.owner} has no row"
    if (job.owner is not None) != (job.state is State.ACTIVE):
        yield f"{id!r} is {job.state} with the owner {job.owner}"
    if (job.outbox is Outbox.NONE) == (job.state is State.WAITING):
        yield f"{id!r} is {job.state} with the outbox {job.outbox!r}"
    if id in contents.index(b"expire") and not job.state.final:
        yield f"retention waits for {id!r}, which is not final"
    if id in contents.index(b"tombs"):
        yield f"{id!r} has a record and a tombstone"
    if id not in contents.hash(b"payload"):
        yield f"{id!r} has no payload"
    if job.outbox is Outbox.SENT and str(job.priority).encode() not in contents.hash(b"marks"):
        yield f"{id!r} is sent at a priority that the watermarks do not name"


def _details(contents: Contents) -> Iterator[str]:
    records = contents.hash(b"record")
    for name in _DETAILS:
        for id in contents.hash(name).keys() - records.keys():
            yield f"{name!r} is kept of {id!r}, of which there is no record"
    for field in contents.hash(b"history"):
        if field.partition(b":")[2] not in records:
            yield f"history {field!r} is kept, of which there is no record"
    for id in contents.hash(b"buried").keys() - contents.index(b"tombs").keys():
        yield f"the last finish of {id!r} is kept, of which there is no tombstone"
    for boot in contents.hash(b"beats").keys() ^ contents.hash(b"infos").keys():
        yield f"the row of {boot!r} is not whole"


def _deduplications(contents: Contents) -> Iterator[str]:
    for deduplication, value in contents.hash(b"deduplication").items():
        until, _, holder = value.partition(b":")
        packed = contents.hash(b"record").get(holder)
        if bool(until) != (deduplication in contents.index(b"windows")):
            yield f"deduplication id {deduplication!r} is not known by its end"
        if not until and (packed is None or State(msgspec.msgpack.decode(packed)[0]).final):
            yield f"deduplication id {deduplication!r} is held by {holder!r}, which is over"
    for deduplication in contents.index(b"windows").keys() - contents.hash(b"deduplication").keys():
        yield f"the window of {deduplication!r} has no holder"


def _schedules(contents: Contents) -> Iterator[str]:
    runs: dict[bytes, float] = {}
    for id, packed in contents.hash(b"schedule").items():
        fields = _raw_fields.decode(packed)
        next_run, paused = (msgspec.msgpack.decode(fields[at]) for at in (3, 4))
        if next_run is not False and not paused:
            runs[id] = next_run
    if contents.index(b"schedules").keys() != contents.hash(b"schedule").keys():
        yield "the schedules and the index of their ids differ"
    if dict(contents.index(b"runs")) != runs:
        yield f"the index of next runs is {dict(contents.index(b'runs'))} instead of {runs}"
