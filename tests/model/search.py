"""Every world that the protocol can reach, and what is wrong in them.

A job is *lost* in a world where the caller has had its yes and no sequence of normal steps leads to a final state. The
other three faults are looked for in each world or each step: a second accepted finish, a handler started twice in one
dispatch, a final record that changes (other than by a disaster, or by retention).
"""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass

from model.protocol import FINAL, Kind, Rules, World, start, steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How many worlds there are, how often each fault was found, and the shortest way to each fault.

    `final_changed` counts steps, the others worlds.
    """

    worlds: int
    lost: int
    finished_twice: int
    started_twice: int
    final_changed: int
    ways: dict[str, str]

    @property
    def sound(self) -> bool:
        return not (self.lost or self.finished_twice or self.started_twice or self.final_changed)


@dataclass(slots=True)
class _Reached:
    """The graph, by number of world in order of discovery, which is the order of distance from the start."""

    worlds: list[World]
    came_by: list[tuple[int, str]]
    comes_from: list[list[int]]  # by normal steps only
    final_changed: list[int]  # the world before each such step


def explore(rules: Rules) -> Verdict:
    """Breadth first over every order of events. Takes 10 to 25 s and up to 1 GB for some 300,000 worlds."""
    # Nothing below makes cycles, and looking for some among a million live tuples would double the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _judge(_reach(rules), rules)
    finally:
        if collecting:
            gc.enable()


def _reach(rules: Rules) -> _Reached:
    first = start(rules)
    number = {first: 0}
    reached = _Reached(worlds=[first], came_by=[(0, "")], comes_from=[[]], final_changed=[])
    for here, world in enumerate(reached.worlds):  # grows while it is walked through
        final = world.record.state in FINAL
        for name, kind, after in steps(world, rules):
            there = number.setdefault(after, len(number))
            if there == len(reached.worlds):
                reached.worlds.append(after)
                reached.came_by.append((here, name))
                reached.comes_from.append([])
            if kind == Kind.NORMAL:
                reached.comes_from[there].append(here)
            kept = after.record.state == world.record.state
            if final and not kept and kind != Kind.DISASTER and after.disaster == world.disaster:
                reached.final_changed.append(here)
    return reached


def _judge(reached: _Reached, rules: Rules) -> Verdict:
    hopeful = _can_end(reached, rules)
    worlds = reached.worlds
    found = {
        "lost": [n for n, world in enumerate(worlds) if world.told and not hopeful[n]],
        "finished_twice": [n for n, world in enumerate(worlds) if world.finals > 1],
        "started_twice": [n for n, world in enumerate(worlds) if max(world.starts) > 1],
        "final_changed": reached.final_changed,
    }
    return Verdict(
        worlds=len(worlds),
        lost=len(found["lost"]),
        finished_twice=len(found["finished_twice"]),
        started_twice=len(found["started_twice"]),
        final_changed=len(found["final_changed"]),
        ways={name: _way(reached, numbers[0]) for name, numbers in found.items() if numbers},
    )


def _can_end(reached: _Reached, rules: Rules) -> list[bool]:
    """Backwards from the worlds in which the job has ended, along normal steps."""

    def ended(world: World) -> bool:
        return world.record.state in FINAL or (rules.retention != "none" and world.finals > 0)

    hopeful = [ended(world) for world in reached.worlds]
    queue = deque(number for number, hope in enumerate(hopeful) if hope)
    while queue:
        for before in reached.comes_from[queue.popleft()]:
            if not hopeful[before]:
                hopeful[before] = True
                queue.append(before)
    return hopeful


def _way(reached: _Reached, number: int) -> str:
    names = []
    while number:
        number, name = reached.came_by[number]
        names.append(name)
    return " > ".join(reversed(names))
