"""Runs that end for good, as statements whose filter is the fence.

Outcomes that differ in nothing but what they bring (result, error, history) are one statement: an update pipeline that
finds each document's own values in lists, by the place of its name. One statement of 128 costs the server less than
half of what 128 cost. Lists are literals: no text of a user's is taken for an expression. Where they would be large,
each outcome is a statement of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateMany, UpdateOne

from ..contract import MAX_HISTORY, Ending, Outcome
from ..job import State
from .connection import Document, Statement
from .names import job_name

MOST_BYTES = 4_000_000  # in one statement; a document, and so a statement, may have 16 MB

ENDED = {
    Ending.COMPLETED: State.COMPLETED,
    Ending.FAILED: State.FAILED,
    Ending.CANCELLED: State.CANCELLED,
}


def end(queue: str, outcomes: Sequence[Outcome], *, now: int, revision: int) -> list[Statement]:
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.dispatch, outcome.owner, outcome.ending, outcome.keep), []).append(outcome)
    statements: list[Statement] = []
    for members in groups.values():
        if len(members) > 1 and sum(map(_size, members)) <= MOST_BYTES:
            statements.append(_end_together(queue, members, now, revision))
        else:
            statements += [_end_alone(queue, outcome, now, revision) for outcome in members]
    return statements


def _end_alone(queue: str, outcome: Outcome, now: int, revision: int) -> UpdateOne:
    sets = _common(outcome, now, revision)
    unsets = {"owner": ""}
    for field, value in (("result", outcome.result), ("error", outcome.error)):
        if value is None:
            unsets[field] = ""
        else:
            sets[field] = value
    update: Document = {"$set": sets, "$unset": unsets}
    if outcome.history is not None:
        update["$push"] = {"history": {"$each": [outcome.history], "$slice": -MAX_HISTORY}}
    if outcome.ending is Ending.FAILED:
        update["$inc"] = {"failures": 1}
    return UpdateOne({"name": job_name(queue, outcome.id), **_fence(outcome)}, update)


def _end_together(queue: str, outcomes: Sequence[Outcome], now: int, revision: int) -> UpdateMany:
    first = outcomes[0]
    names = [job_name(queue, outcome.id) for outcome in outcomes]
    place = {"$indexOfArray": [{"$literal": names}, "$name"]}
    sets: Document = {field: {"$literal": value} for field, value in _common(first, now, revision).items()}
    sets["result"] = _own([outcome.result for outcome in outcomes])
    sets["error"] = _own([outcome.error for outcome in outcomes])
    entries = [[] if outcome.history is None else [outcome.history] for outcome in outcomes]
    if any(entries):
        known: Document = {"$ifNull": ["$history", []]}
        sets["history"] = {"$slice": [{"$concatArrays": [known, _at_place(entries)]}, -MAX_HISTORY]}
    if first.ending is Ending.FAILED:
        sets["failures"] = {"$add": [{"$ifNull": ["$failures", 0]}, 1]}
    pipeline: list[Document] = [{"$set": {"place": place}}, {"$set": sets}, {"$unset": ["place", "owner"]}]
    return UpdateMany({"name": {"$in": names}, **_fence(first)}, pipeline)


def _own(values: Sequence[bytes | None]) -> Any:
    """A document's own value; None: the field goes."""
    return (
        "$$REMOVE" if not any(value is not None for value in values) else {"$ifNull": [_at_place(values), "$$REMOVE"]}
    )


def _at_place(values: Sequence[Any]) -> Document:
    return {"$arrayElemAt": [{"$literal": values}, "$place"]}


def _common(outcome: Outcome, now: int, revision: int) -> Document:
    sets: Document = {
        "state": outcome.ending.value,
        "at": now,
        "finished_at": now,
        "revision": revision,
        "group": group_of(outcome),
        "last_finish": fence_of(outcome),
    }
    if outcome.keep.age is not None:
        sets["forget_at"] = now + outcome.keep.age
    return sets


def _fence(outcome: Outcome) -> Document:
    return {
        "state": State.ACTIVE.value,
        "dispatch": outcome.dispatch,
        "owner": outcome.owner,
        "lost": None,
        "windows": None,  # a deduplication id is freed, or not, after a look at its window
    }


def _size(outcome: Outcome) -> int:
    return sum(len(part) for part in (outcome.result, outcome.error, outcome.history) if part) + 4 * len(outcome.id)


def group_of(outcome: Outcome) -> str:
    return f"{ENDED[outcome.ending].value}:{outcome.keep.group}"


def fence_of(outcome: Outcome) -> str:
    """A finish, as its repeat is recognised."""
    return f"{outcome.dispatch}:{outcome.ending.value}:{outcome.owner}"
