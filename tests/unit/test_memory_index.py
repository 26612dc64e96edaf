"""The sorted set behind the memory store's indexes, against a plain sorted list, past the size of its chunks."""

from __future__ import annotations

import random

import pytest

from callboard.metadata.memory.index import CHUNK, Index

NAMES = 8 * CHUNK


@pytest.fixture(params=range(4))
def pair(request: pytest.FixtureRequest) -> tuple[Index, list[tuple[int, int, str]]]:
    """An index after thousands of random additions, moves and removals, and its entries in order."""
    dice = random.Random(request.param)
    index, entries = Index(), {}
    for serial in range(4 * NAMES):
        name = f"n{dice.randrange(NAMES)}"
        if dice.random() < 0.3:
            assert index.discard(name) == (entries.pop(name, None) is not None)
        else:
            score = dice.randrange(NAMES // 4)
            index.add(name, score)
            entries[name] = (score, serial, name)
    return index, sorted(entries.values())


def test_names_come_in_the_order_of_their_numbers_and_then_of_their_arrival(
    pair: tuple[Index, list[tuple[int, int, str]]],
) -> None:
    index, entries = pair
    assert list(index) == [name for _, _, name in entries]
    assert len(index) == len(entries)
    assert (index.lowest(), index.oldest()) == (entries[0][0], entries[0][2])


def test_every_name_has_its_number(pair: tuple[Index, list[tuple[int, int, str]]]) -> None:
    index, entries = pair
    assert [index.score(name) for _, _, name in entries] == [score for score, _, _ in entries]
    assert index.score("nobody") is None
    assert "nobody" not in index


@pytest.mark.parametrize("bound", [0, 1, NAMES // 8, NAMES])
@pytest.mark.parametrize("limit", [0, 1, CHUNK, NAMES])
def test_what_lies_below_a_bound_is_found_up_to_the_limit(
    pair: tuple[Index, list[tuple[int, int, str]]], bound: int, limit: int
) -> None:
    index, entries = pair
    assert index.below(bound, limit) == [name for score, _, name in entries if score < bound][:limit]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("offset", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5, NAMES])
def test_a_slice_is_found_from_either_end(
    pair: tuple[Index, list[tuple[int, int, str]]], offset: int, descending: bool
) -> None:
    index, entries = pair
    names = [name for _, _, name in sorted(entries, reverse=descending)]
    assert index.slice(offset, 700, descending=descending) == names[offset : offset + 700]


def test_an_emptied_index_is_empty() -> None:
    index = Index()
    for n in range(NAMES):
        index.add(f"n{n}", n)
    assert all(index.discard(f"n{n}") for n in range(NAMES))
    assert (len(index), list(index), index.lowest(), index.oldest()) == (0, [], None, None)
    assert not index.discard("n0")
