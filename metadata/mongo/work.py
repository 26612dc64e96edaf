"""A call as one read and one guarded write.

    read        the documents that the batch is about, in one trip
    decide      entry by entry, in memory: an entry sees what the entries before it did
    write       the documents that changed, in one trip, each only if it still has the `revision` that was read

Every write leaves a new revision. A document that somebody else changed in between refuses the write, and the entries
that looked at it are decided again on what it has become; somebody else has got on, so this ends. The answers of the
others stand. A write whose reply is lost leaves nothing half done, since what an entry changes is one document; where
it is two (a window that is over is taken from its last holder), the first write alone is harmless.

A job that replaces a delayed one takes over its document, by its name. No two documents have one name, so neither can
the old name's tombstone be there before, nor what is left of a former job with the new name. In order, each write alone
harmless, each seen only where no document has the name itself:

    lay         the tombstones of the old job, where a ticket of it was sent, and of the new name's former job, under
                names of their own; a job that has its name is not affected, whether it is replaced in the end or not
    give way    the new name's former tombstone goes; its windows stay, in a document of their own
    write       the document changes its name, if it still has its revision
    settle      the old job's tombstone takes its own name, the other goes. Who looks in between sees neither, or both;
                but who would adopt the old job then finds its name taken

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
from .names import GROUP, QUEUE, SHADOW, TOMBSTONE, group_name, job_name, laid_name, queue_name, shadow_name
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
    gives_way: bool = False


class Laid(Struct, frozen=True):
    """`tombstone`: under its job's name, which it takes when `heir` is written, if it `stays`."""

    tombstone: Record
    heir: Held
    stays: bool


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
        self._laid: list[Laid] = []
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
        """Jobs by name, or what is left of them, and what holds deduplication ids, with the records of the holders.
        `clocked`: with the store's clock, which makes them dearer to read."""
        wanted = list(dict.fromkeys(names))
        where: Document = {"name": {"$in": [*wanted, *map(laid_name, wanted)]}}
        if keys:
            where = {"$or": [where, {"windows.key": {"$in": list(keys)}}]}
        fields = projection(without, clocked=clocked)
        if wanted or keys:
            self.take(await self.connection.find(where, fields), without)
        for name in wanted:
            if name not in self._by_name and (laid := self._by_name.get(laid_name(name))) is not None:
                self._by_name[name] = laid
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

    def lay(self, tombstone: Record, heir: Record, *, stays: bool) -> None:
        """Have a tombstone there before `heir`, a document that goes on as another job, is written."""
        self._laid.append(Laid(tombstone, self._by_name[heir.name], stays))

    def give_way(self, left: Record) -> None:
        """Free the name of what is left of a job, but for its windows."""
        held = self._by_name.pop(left.name)
        held.gives_way = True
        left.name = shadow_name(left.queue, self.connection.revision())
        left.state, left.last_finish = SHADOW, None
        self._by_name[left.name] = held

    def _note(self, name: str) -> None:
        self._looked.setdefault(self.entry, set()).add(name)

    def looked_at(self, entry: int, names: set[str]) -> bool:
        return not names.isdisjoint(self._looked.get(entry, ()))

    # -- writing --------------------------------------------------------------------------------------------------

    async def commit(self) -> set[str]:
        """The names of documents that were not written, since somebody else changed them."""
        gone = [held for held in self._held if held.gives_way]
        changed = [
            (held, difference)
            for held in self._held
            if not held.gives_way and held.before is not None and (difference := changes(held.before, held.record))
        ]
        added = [held for held in self._held if held.before is None]
        await self.connection.write([self._laying(laid.tombstone) for laid in self._laid])  # refused: it is there
        if gone and not await self._free_names(gone):
            return {name for held in self._held for name in (held.name, held.record.name)}
        counted = self._growth([held for held, _ in changed] + added, 1)
        async with counting(self.connection, counted.keys()):
            lost = await self._update(changed, [*_statements(counted, self.keeps), *watermarks(self.marks)])
            documents = [{**write(held.record), "revision": self.revision} for held in added]
            lost += [added[place] for place in await self.connection.insert(documents)]
            if lost and (uncounted := self._growth(lost, -1)):
                await self.connection.write([*_statements(uncounted, {})])
        await self._settle([laid for laid in self._laid if laid.heir not in lost])
        return {name for held in lost for name in (held.name, held.record.name)}

    def _laying(self, tombstone: Record) -> UpdateOne:
        sets = {"queue": tombstone.queue, "state": TOMBSTONE, "id": tombstone.id, "revision": self.revision}
        update: Document = {"$set": sets, "$max": {"at": tombstone.at}}
        if tombstone.last_finish is None:
            update["$unset"] = {"last_finish": ""}
        else:
            sets["last_finish"] = tombstone.last_finish
        return UpdateOne({"name": laid_name(tombstone.name)}, update, upsert=True)

    async def _free_names(self, gone: Sequence[Held]) -> bool:
        statements: list[Statement] = []
        for held in gone:
            where = {"name": held.name, "revision": held.revision}
            if held.record.windows and held.before is not None:
                statements.append(UpdateOne(where, update_of(changes(held.before, held.record), self.revision)))
            else:
                statements.append(DeleteOne(where))
        return (await self.connection.write(statements)).count == len(gone)

    async def _settle(self, settled: Sequence[Laid]) -> None:
        """Of tombstones that nobody else has laid again since."""
        ours = [{"name": laid_name(laid.tombstone.name), "revision": self.revision} for laid in settled]
        statements: list[Statement] = [
            UpdateOne(where, {"$set": {"name": laid.tombstone.name}}) if laid.stays else DeleteOne(where)
            for where, laid in zip(ours, settled, strict=True)
        ]
        refused = (await self.connection.write(statements)).refused
        await self.connection.write([DeleteOne(ours[place]) for place in refused])  # there is a new job of that name

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
