"""The targets of coverage_fuzz.py, without atheris: each takes what its search begins with, cut off and changed too."""

from __future__ import annotations

from random import Random

import pytest

from faults.coverage_fuzz import SEEDS, TARGETS

CHANGES = 100


def variants(seed: bytes, random: Random) -> list[bytes]:
    """Itself, its beginnings, and it with one byte changed, CHANGES times."""
    places = [random.randrange(len(seed)) for _ in range(CHANGES)]
    changed = [seed[:place] + bytes([random.randrange(256)]) + seed[place + 1 :] for place in places]
    return [seed, *(seed[:end] for end in range(len(seed))), *changed]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_others_wrote_raises_nothing_but_what_is_said(name: str) -> None:
    target, random = TARGETS[name](), Random(1)

    for seed in SEEDS[name]:
        for data in variants(seed, random):
            target(data)
