"""The way to the server, in what PyMongo's AsyncMongoClient and Motor have in common.

Every write is acknowledged by a majority and journaled, every read comes from the primary and was acknowledged by a
majority: set here, on the collection, whatever the client or the URL says. A write that is not acknowledged in time is
StoreUnavailable: it may have happened, and is to be repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Any, cast

from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from msgspec import Struct
from pymongo import AsyncMongoClient, DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, InvalidOperation, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from ..errors import StoreRefused, StoreUnavailable
from .address import Address
from .failures import DUPLICATE, FAILURES, translated
from .names import STORE

Document = dict[str, Any]
Statement = UpdateOne | UpdateMany | DeleteOne | DeleteMany | ReplaceOne[Document] | InsertOne[Document]

ONE_TRIP = 1_000  # documents that come with the first answer, as far as they fit in 16 MB; the server's default is 101
LAYOUT = 1  # of documents; a number that changes when older versions could not read them
INDEX_NOT_FOUND = 27
WTIMEOUT = 5_000  # ms for a majority to acknowledge a write


class _PlainNumbers(TypeDecoder):
    """The driver's own class for what needs 64 bits is a stranger to every encoder of ours."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


_CODECS: CodecOptions[Document] = CodecOptions(tz_aware=False, type_registry=TypeRegistry([_PlainNumbers()]))
_BARE: CodecOptions[Document] = CodecOptions(tz_aware=False)


class Written(Struct, frozen=True):
    """How many documents were matched, made or deleted; `refused`: places of the statements that a unique index
    refused."""

    count: int
    refused: frozenset[int] = frozenset()


class MongoConnection:
    """`client`: one that somebody else opens and closes; None: made from the address by `open`."""

    def __init__(
        self, address: Address, *, collection: str, claim_window: int, client: Any = None, random: Random | None = None
    ) -> None:
        self.name = address.name
        self.epoch = ""
        self.doubtful: set[tuple[str, str]] = set()  # groups whose counters may be wrong: see `counting.py`
        self.claim_window = claim_window
        self._address = address
        self._collection_name = collection
        self._given = client
        self._client: Any = None
        self._collection: Any = None
        self._random = random or SystemRandom()

    # -- opening --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make a client. Nothing is sent yet."""
        if self._collection is not None:
            return
        with_client = self._given
        if with_client is None:
            async with self._guarded():
                with_client = self._client = _client(self._address)
        self._collection = with_client.get_database(self._address.database).get_collection(
            self._collection_name,
            codec_options=_CODECS,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", j=True, wtimeout=WTIMEOUT),
        )

    async def close(self) -> None:
        client, self._client, self._collection = self._client, None, None
        if client is not None and (closing := client.close()) is not None:
            await closing  # Motor's closes at once

    async def read_identity(self, epoch: str) -> None:
        """The namespace's epoch and claim window; `epoch` and our own window where it is new. StoreRefused: it is kept
        in another layout."""
        known = await self.find({"name": STORE}, limit=1)
        if not known:
            await self.update_one(
                {"name": STORE},
                {"$setOnInsert": {"state": STORE, "epoch": epoch, "claim_window": self.claim_window, "layout": LAYOUT}},
                upsert=True,
            )
            known = await self.find({"name": STORE}, limit=1)
        if not known:
            raise StoreUnavailable(self.name, "its first document is not acknowledged by a majority yet")
        layout = known[0].get("layout", LAYOUT)  # the first had no number
        if layout != LAYOUT:
            raise StoreRefused(
                f"the collection {self._collection_name} on {self.name} is kept in layout {layout}, and this version of"
                f" Callboard knows layout {LAYOUT}: use the version that wrote it, or another namespace"
            )
        self.epoch, self.claim_window = known[0]["epoch"], known[0]["claim_window"]

    # -- reading --------------------------------------------------------------------------------------------------

    async def find(
        self,
        where: Document,
        fields: Document | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        skip: int = 0,
    ) -> list[Document]:
        async with self._guarded():
            cursor = self._open_collection().find(
                where, fields or {"_id": 0}, skip=skip, limit=limit, batch_size=ONE_TRIP
            )
            if sort:
                cursor = cursor.sort(list(sort))
            found: list[Document] = await cursor.to_list(None)
            return found

    async def find_numbers(self, where: Document, fields: Document) -> list[Document]:
        """As `find`, in a third of the time: what needs 64 bits comes as the driver's own class, which `int` makes
        plain."""
        async with self._guarded():
            collection = self._open_collection().with_options(codec_options=_BARE)
            found: list[Document] = await collection.find(where, fields, batch_size=ONE_TRIP).to_list(None)
            return found

    async def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """For answers of up to 16 MB."""
        async with self._guarded():
            collection = self._open_collection()
            answer = await collection.database.command(
                {
                    "aggregate": collection.name,
                    "pipeline": list(pipeline),
                    "cursor": {"batchSize": 100_000},
                    "readConcern": {"level": "majority"},
                }
            )
            found: list[Document] = answer["cursor"]["firstBatch"]
            return found

    async def distinct(self, field: str, where: Document) -> list[Any]:
        async with self._guarded():
            found: list[Any] = await self._open_collection().distinct(field, where)
            return found

    async def clock(self) -> int:
        """The server's wall clock in ms."""
        moment: datetime = (await self.command("hello"))["localTime"]
        return round(moment.replace(tzinfo=UTC).timestamp() * 1000)

    async def command(self, name: str, *, database: str | None = None, **arguments: Any) -> Mapping[str, Any]:
        async with self._guarded():
            own = self._open_collection().database
            target = own if database is None else own.client.get_database(database)
            answer: Mapping[str, Any] = await target.command({name: 1, **arguments})
            return answer

    # -- writing --------------------------------------------------------------------------------------------------

    def revision(self) -> int:
        """A number that nobody else writes: what a write leaves in the documents that it changed."""
        return self._random.getrandbits(63)

    def jitter(self, seconds: float) -> float:
        return self._random.uniform(0, seconds)

    async def insert(self, documents: Sequence[Document]) -> frozenset[int]:
        """Each for itself; the places of those that a unique index refused."""
        if not documents:
            return frozenset()
        async with self._guarded():
            try:
                await self._open_collection().insert_many(documents, ordered=False)
            except BulkWriteError as error:
                return _refused(error)
            return frozenset()

    async def write(self, statements: Sequence[Statement]) -> Written:
        """All in one trip, each for itself."""
        if not statements:
            return Written(0)
        async with self._guarded():
            try:
                result = await self._open_collection().bulk_write(list(statements), ordered=False)
            except BulkWriteError as error:
                refused, details = _refused(error), error.details
                return Written(
                    sum(details[part] for part in ("nMatched", "nUpserted", "nRemoved", "nInserted")), refused
                )
            return Written(result.matched_count + result.upserted_count + result.deleted_count + result.inserted_count)

    async def update_one(self, where: Document, update: Document | Sequence[Document], *, upsert: bool = False) -> bool:
        """Whether there was, or now is, such a document."""
        return bool((await self.write([UpdateOne(where, update, upsert=upsert)])).count)

    async def create_indexes(self, indexes: Sequence[Any]) -> None:
        """In the background of a collection that is in use. One that is there already is left alone."""
        if indexes:
            async with self._guarded():
                await self._open_collection().create_indexes(list(indexes))

    async def drop_indexes(self, names: Sequence[str]) -> None:
        """Those that another process drops at the same time, too."""
        for name in names:
            async with self._guarded():
                try:
                    await self._open_collection().drop_index(name)
                except OperationFailure as error:
                    if error.code != INDEX_NOT_FOUND:
                        raise

    async def index_information(self) -> Mapping[str, Any]:
        async with self._guarded():
            found: Mapping[str, Any] = await self._open_collection().index_information()
            return found

    # -- errors ---------------------------------------------------------------------------------------------------

    def _open_collection(self) -> Any:
        if self._collection is None:
            raise StoreUnavailable(self.name, "it is not open")
        return self._collection

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            yield
        except FAILURES as error:
            if isinstance(error, InvalidOperation) and self._collection is None:
                raise StoreUnavailable(self.name, "it was closed") from error
            raise translated(error, self.name) from error


def _refused(error: BulkWriteError) -> frozenset[int]:
    """Raises it again where anything but a unique index is at fault."""
    details = error.details
    faults = details.get("writeErrors", ())
    if details.get("writeConcernErrors") or any(fault.get("code") != DUPLICATE for fault in faults):
        raise error
    return frozenset(fault["index"] for fault in faults)


def _client(address: Address) -> Any:
    """StoreRefused, or one of FAILURES: what the URL says cannot be used."""
    milliseconds, driver = round(address.timeout * 1000), _driver(address.driver)
    try:
        return driver(
            address.url,
            appname="callboard",
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds + WTIMEOUT,
            waitQueueTimeoutMS=milliseconds,
            maxPoolSize=address.max_connections,
        )
    except (OSError, ValueError) as error:  # a file that holds no certificate, a minPoolSize above max_connections
        raise StoreRefused(f"{address.name} cannot be used with the options of its URL: {error}") from error


def _driver(name: str) -> Callable[..., Any]:
    if name != "motor":
        return AsyncMongoClient
    try:
        from motor.motor_asyncio import AsyncIOMotorClient  # only who asks for it needs it
    except ModuleNotFoundError as error:
        raise StoreRefused("driver=motor in the MongoDB URL needs the package 'motor': pip install motor") from error
    return cast("Callable[..., Any]", AsyncIOMotorClient)
