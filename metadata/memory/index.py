"""Names in the order of a number each, as a sorted set: what every queue index of the memory store is made of.

Entries live in chunks of at most 2 * CHUNK, each sorted, found by bisecting their largest entries. Adding, moving and
discarding cost O(log n) comparisons and one move inside a chunk, whatever the number of entries. Equal numbers keep
the order of their arrival.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

CHUNK = 256

Entry = tuple[int, int, str]


class Index:
    __slots__ = ("_chunks", "_entries", "_last", "_serial")

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._chunks: list[list[Entry]] = []
        self._last: list[Entry] = []  # the largest entry of each chunk
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return (entry[2] for chunk in self._chunks for entry in chunk)

    def add(self, name: str, score: int) -> None:
        """Put a name in its place; one that is there already moves."""
        if name in self._entries:
            self.discard(name)
        self._serial += 1
        entry = (score, self._serial, name)
        self._entries[name] = entry
        if not self._chunks:
            self._chunks.append([entry])
            self._last.append(entry)
            return
        if entry > self._last[-1]:
            at = len(self._last) - 1
            chunk = self._chunks[at]
            chunk.append(entry)
            self._last[at] = entry
        else:
            at = bisect_left(self._last, entry)
            chunk = self._chunks[at]
            insort(chunk, entry)
        if len(chunk) > 2 * CHUNK:
            self._chunks.insert(at + 1, chunk[CHUNK:])
            del chunk[CHUNK:]
            self._last.insert(at, chunk[-1])

    def discard(self, name: str) -> bool:
        entry = self._entries.pop(name, None)
        if entry is None:
            return False
        at = bisect_left(self._last, entry)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, entry)]
        if not chunk:
            del self._chunks[at]
            del self._last[at]
        elif self._last[at] is entry:
            self._last[at] = chunk[-1]
        return True

    def score(self, name: str) -> int | None:
        entry = self._entries.get(name)
        return None if entry is None else entry[0]

    def lowest(self) -> int | None:
        """The smallest number in the index."""
        return self._chunks[0][0][0] if self._chunks else None

    def oldest(self) -> str | None:
        return self._chunks[0][0][2] if self._chunks else None

    def below(self, bound: int, limit: int) -> list[str]:
        """Up to `limit` names whose number is less than `bound`, smallest first."""
        found: list[str] = []
        for chunk in self._chunks:
            for score, _, name in chunk:
                if score >= bound or len(found) >= limit:
                    return found
                found.append(name)
        return found

    def slice(self, offset: int, limit: int, *, descending: bool) -> list[str]:
        """`limit` names after the first `offset`."""
        found: list[str] = []
        for chunk in reversed(self._chunks) if descending else self._chunks:
            if offset >= len(chunk):
                offset -= len(chunk)
                continue
            ordered = chunk[::-1] if descending else chunk
            found.extend(entry[2] for entry in ordered[offset : offset + limit - len(found)])
            offset = 0
            if len(found) >= limit:
                break
        return found
