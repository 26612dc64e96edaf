"""A call as one read and one guarded write.

    read        the documents that the batch is about, in one trip
    decide      entry by entry, in memory: an entry sees what the entries before it did
    write       the documents that changed, in one trip, each only if it still has the `revision` that was read

Every write leaves a new revision. A document that somebody else changed in between refuses the write, and the entries
that looked at it are decided again on what it has become; somebody else has got on, so this ends. The answers of the
others stand. A write whose reply is lost leaves nothing half done, since what an entry changes is one document; where
it is two (a window that is over is taken from its last holder, a tombstone is left of a job that was replaced), the
first write alone is harmless.

Documents that changed in the same way since the same revision are written by one statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from pymongo import DeleteOne, UpdateMany, UpdateOne

from ..errors import StoreUnavailable
from .connection import Document, MongoConnection, Statement
from .counting import counting
from .names import GROUP, QUEUE, group_name, job_name, queue_name
from .record import ALL, Changes, Record, changes, projection, read, update_of, write

ROUNDS = 100  # of deciding again; each means that others changed the same documents meanwhile
LONGEST_PAUSE = 0.05  # seconds between two rounds

E = TypeVar("E")
A = TypeVar("A")


class Held(Struct):
    """A record, and the document that it was read from (`before` None: there is none yet)."""

    record: Record
    before: tuple[Any, ...] | None
    name: str
    revision: int
    group: str | None
    deleted: bool = False


class Work:
    """`not_before`, `deadline`: ms of the store's clock, before and after which nothing is written."""

    def __init__(self, connection: MongoConnection) -> None:
        self.connection = connection
        self.revision = connection.revision()
        self.clock: int | None = None
        self.not_before: int | None = None
        self.deadline: int | None = None
        self.keeps: dict[tuple[str, str], int | None] = {}  # (queue, group) -> the latest `Keep.count`
        self.marks: dict[str, dict[int, int]] = {}  # queue -> priority -> the latest sent_at of what is claimed
        self.noted: dict[str, int] = {}  # the watermarks of the queue, by priority, as they were before
        self.again: set[int] = set()  # entries to be decided again after this write
        self.entry = 0
        self._looked: dict[int, set[str]] = {}
        self._held: list[Held] = []
        self._by_name: dict[str, Held] = {}
        self._by_key: dict[str, Held] = {}

    # -- reading --------------------------------------------------------------------------------------------------

    async def load(
        self,
        names: Iterable[str],
        *,
        keys: Sequence[str] = (),
        without: frozenset[str] = ALL,
        clocked: bool = True,
    ) -> None:
        """Documents by name, and those that hold deduplication ids, with the records of their holders. `clocked`: with
        the store's clock, which makes them dearer to read."""
        wanted = list(dict.fromkeys(names))
        where: Document = {"name": {"$in": wanted}}
        if keys:
            where = {"$or": [where, {"windows.key": {"$in": list(keys)}}]}
        fields = projection(without, clocked=clocked)
        if wanted or keys:
            self.take(await self.connection.find(where, fields), without)
        missing = {
            job_name(held.record.queue, window.holder)
            for key in keys
            if (held := self._by_key.get(key)) is not None
            for window in held.record.windows
            if window.key == key
        } - self._by_name.keys()
        if missing:
            self.take(await self.connection.find({"name": {"$in": sorted(missing)}}, fields), without)

    def take(self, documents: Iterable[Document], without: frozenset[str]) -> list[Record]:
        """Go on with documents that were read."""
        records = []
        for document in documents:
            self.clock = document.get("clock", self.clock)
            if document["name"] in self._by_name:
                continue
            record = read(document, without)
            records.append(record)
            self._hold(Held(record, msgspec.structs.astuple(record), record.name, record.revision, record.group))
        return records

    def _hold(self, held: Held) -> None:
        self._held.append(held)
        self._by_name[held.record.name] = held
        for window in held.record.windows:
            self._by_key[window.key] = held

    # -- looking and changing -------------------------------------------------------------------------------------

    def find(self, name: str) -> Record | None:
        """A job's record, or what is left of one."""
        self._note(name)
        held = self._by_name.get(name)
        return None if held is None else held.record

    def find_job(self, name: str) -> Record | None:
        record = self.find(name)
        return record if record is not None and record.exists else None

    def find_holder(self, key: str) -> Record | None:
        """The record in whose document a deduplication id is held."""
        held = self._by_key.get(key)
        if held is None:
            return None
        self._note(held.name)
        self._note(held.record.name)
        return held.record

    def index_windows(self, record: Record, before: Iterable[str]) -> None:
        """After a change of its windows; `before`: the keys that it held."""
        held = self._by_name[record.name]
        for key in before:
            if self._by_key.get(key) is held:
                del self._by_key[key]
        for window in record.windows:
            self._by_key[window.key] = held

    def add(self, record: Record) -> None:
        self._hold(Held(record, None, record.name, 0, None))
        self._note(record.name)

    def is_new(self, name: str) -> bool:
        held = self._by_name.get(name)
        return held is not None and held.before is None

    def rename(self, record: Record, name: str) -> None:
        """After `record`, read as `name`, became another job."""
        held = self._by_name.pop(name)
        if held.before is None:
            held.name = record.name
        self._by_name[record.name] = held
        self._note(record.name)

    def mark(self, queue: str, priority: int, sent_at: int) -> None:
        """Move the watermark, if that is later."""
        known = self.noted.get(str(priority), 0)
        marks = self.marks.setdefault(queue, {})
        if sent_at > max(known, marks.get(priority, 0)):
            marks[priority] = sent_at

    def delete(self, name: str) -> None:
        """Drop a document, so that another may take its name."""
        held = self._by_name.pop(name)
        held.deleted = True

    def _note(self, name: str) -> None:
        self._looked.setdefault(self.entry, set()).add(name)

    def looked_at(self, entry: int, names: set[str]) -> bool:
        return not names.isdisjoint(self._looked.get(entry, ()))

    # -- writing --------------------------------------------------------------------------------------------------

    async def commit(self) -> set[str]:
        """The names of documents that were not written, since somebody else changed them."""
        deleted = [held for held in self._held if held.deleted and held.before is not None]
        changed = [
            (held, difference)
            for held in self._held
            if not held.deleted and held.before is not None and (difference := changes(held.before, held.record))
        ]
        added = [held for held in self._held if not held.deleted and held.before is None]
        if deleted and not await self._delete(deleted):
            return {name for held in self._held for name in (held.name, held.record.name)}
        counted = self._growth([held for held, _ in changed] + added, 1)
        async with counting(self.connection, counted.keys()):
            lost = await self._update(changed, [*_statements(counted, self.keeps), *watermarks(self.marks)])
            documents = [{**write(held.record), "revision": self.revision} for held in added]
            lost += [added[place] for place in await self.connection.insert(documents)]
            if lost and (uncounted := self._growth(lost, -1)):
                await self.connection.write([*_statements(uncounted, {})])
        return {name for held in lost for name in (held.name, held.record.name)}

    async def _delete(self, deleted: Sequence[Held]) -> bool:
        statements = [DeleteOne({"name": held.name, "revision": held.revision}) for held in deleted]
        return (await self.connection.write(statements)).count == len(deleted)

    async def _update(self, changed: Sequence[tuple[Held, Changes]], more: Sequence[Statement]) -> list[Held]:
        groups: dict[tuple[int, Changes], list[Held]] = {}
        for held, difference in changed:
            groups.setdefault((held.revision, difference), []).append(held)
        statements: list[Statement] = []
        for (revision, difference), members in groups.items():
            where: Document = {"name": {"$in": [held.name for held in members]}, "revision": revision}
            if self.deadline is not None:
                where |= in_time(self.deadline)
            elif self.not_before is not None:
                where["$expr"] = {"$gte": [{"$toLong": "$$NOW"}, self.not_before]}
            update = update_of(difference, self.revision)
            if len(members) == 1:
                statements.append(UpdateOne({**where, "name": members[0].name}, update))
            else:
                statements.append(UpdateMany(where, update))
        written = await self.connection.write([*statements, *more])
        if written.count == len(changed) + len(more):
            return []
        # A group's first count may meet another's.
        await self.connection.write(
            [more[place - len(statements)] for place in written.refused if place >= len(statements)]
        )
        names = [held.record.name for held, _ in changed]
        found = await self.connection.find({"name": {"$in": names}, "revision": self.revision}, {"_id": 0, "name": 1})
        ours = {document["name"] for document in found}
        return [held for held, _ in changed if held.record.name not in ours]

    def _growth(self, written: Iterable[Held], sign: int) -> dict[tuple[str, str], int]:
        """By how much the groups of final jobs grow."""
        growth: dict[tuple[str, str], int] = {}
        for held in written:
            if held.group != held.record.group:
                for group, step in ((held.group, -sign), (held.record.group, sign)):
                    if group is not None:
                        place = (held.record.queue, group)
                        growth[place] = growth.get(place, 0) + step
        return {place: step for place, step in growth.items() if step or place in self.keeps}


def in_time(deadline: int) -> Document:
    """A filter: before that moment of the server's clock, in ms."""
    return {"$expr": {"$lt": [{"$toLong": "$$NOW"}, deadline]}}


def _statements(growth: dict[tuple[str, str], int], keeps: dict[tuple[str, str], int | None]) -> Iterator[UpdateOne]:
    for (queue, group), step in growth.items():
        yield count_group(queue, group, step, keeps.get((queue, group), ...))


def watermarks(marks: dict[str, dict[int, int]]) -> Iterator[UpdateOne]:
    for queue, by_priority in marks.items():
        if by_priority:
            yield UpdateOne(
                {"name": queue_name(queue)},
                {
                    "$max": {f"marks.{priority}": mark for priority, mark in by_priority.items()},
                    "$setOnInsert": {"queue": queue, "state": QUEUE},
                },
                upsert=True,
            )


def count_group(queue: str, group: str, step: int, keep: Any) -> UpdateOne:
    """`keep`: the latest count that is kept of the group; ... leaves it as it is."""
    update: Document = {"$inc": {"count": step}, "$setOnInsert": {"queue": queue, "state": GROUP, "of": group}}
    if keep is None:
        update["$unset"] = {"keep": ""}
    elif keep is not ...:
        update["$set"] = {"keep": keep}
    return UpdateOne({"name": group_name(queue, group)}, update, upsert=True)


async def settle(
    connection: MongoConnection,
    entries: Sequence[E],
    load: Callable[[Work, Sequence[E]], Awaitable[None]],
    decide: Callable[[Work, E], A],
) -> list[A]:
    """Decide a batch until each of its entries is written, or wants nothing written."""
    answers: dict[int, A] = {}
    pending = list(range(len(entries)))
    for turn in range(ROUNDS):
        work = Work(connection)
        await load(work, [entries[place] for place in pending])
        for place in pending:
            work.entry = place
            answers[place] = decide(work, entries[place])
        lost = await work.commit()
        pending = [place for place in pending if place in work.again or (lost and work.looked_at(place, lost))]
        if not pending:
            return [answers[place] for place in range(len(entries))]
        if lost:
            await pause(connection, turn)
    raise StoreUnavailable(connection.name, f"{len(pending)} of {len(entries)} jobs changed too quickly to be written")


async def pause(connection: MongoConnection, turn: int) -> None:
    """Before deciding again, so that what others wrote is acknowledged by a majority by then."""
    await asyncio.sleep(connection.jitter(min(LONGEST_PAUSE, 0.001 * 2 ** min(turn, 10))))
