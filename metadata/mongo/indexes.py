"""The indexes: made when a store is opened, in the background, and compared with what is wanted.

name           unique: one id, one record
windows        unique: one deduplication id, one holder
list           lists, counts, delayed jobs, held jobs, tombstones, workers; by its end, what a boot holds
outbox, sent, forget, group, closing, asked     each holds only the documents that have its field

A write of one document costs the server about 28 us, and 4 more for each key that changes in an index: a job is in as
few of them as its state needs. What a boot holds is found among the active jobs of the queue, not by an index of its
own: each job would enter and leave that once, and nobody looks there but who recovers, leaves or counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from pymongo import IndexModel

_ASCENDING = 1


class Index(Struct, frozen=True, kw_only=True):
    name: str
    keys: tuple[str, ...]
    unique: bool = False
    sparse: bool = False
    only_with: str | None = None

    def model(self) -> IndexModel:
        options: dict[str, Any] = {"name": self.name}
        if self.unique:
            options["unique"] = True
        if self.sparse:
            options["sparse"] = True
        if self.only_with is not None:
            options["partialFilterExpression"] = {self.only_with: {"$exists": True}}
        return IndexModel([(key, _ASCENDING) for key in self.keys], **options)

    def is_like(self, information: Mapping[str, Any]) -> bool:
        only_with = {} if self.only_with is None else {self.only_with: {"$exists": True}}
        return (
            [key for key, _ in information["key"]] == list(self.keys)
            and all(direction == _ASCENDING for _, direction in information["key"])
            and bool(information.get("unique")) == self.unique
            and bool(information.get("sparse")) == self.sparse
            and dict(information.get("partialFilterExpression", {})) == only_with
        )


INDEXES: Sequence[Index] = (
    Index(name="name", keys=("name",), unique=True),
    Index(name="windows", keys=("windows.key",), unique=True, sparse=True),
    Index(name="list", keys=("queue", "state", "at", "owner")),
    Index(name="outbox", keys=("queue", "state", "due"), only_with="due"),
    Index(name="sent", keys=("queue", "priority", "sent_at"), only_with="sent_at"),
    Index(name="forget", keys=("queue", "forget_at"), only_with="forget_at"),
    Index(name="group", keys=("queue", "group", "at"), only_with="group"),
    Index(name="closing", keys=("queue", "closes_at"), only_with="closes_at"),
    Index(name="asked", keys=("queue", "owner"), only_with="cancel"),
)
FORMER = frozenset({"state", "owner"})  # of earlier versions; dropped when those above are there


def faults(information: Mapping[str, Any]) -> Sequence[tuple[Index, str]]:
    """The indexes that are missing or different, each with what is wrong."""
    found = []
    for index in INDEXES:
        actual = information.get(index.name)
        if actual is None:
            found.append((index, "is missing"))
        elif not index.is_like(actual):
            found.append((index, "is not what this version of Callboard makes; drop it, so that it is made again"))
    return found
