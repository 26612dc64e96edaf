"""Where an exchange sends a message: AMQP's rules for topic and direct exchanges."""

from __future__ import annotations

from typing import Generic, TypeVar

Target = TypeVar("Target")

ROUTES_KEPT = 4096  # routing keys an exchange remembers the answer for


def matches(pattern: str, routing_key: str) -> bool:
    """`*` is one word, `#` any number of words, none included; words are divided by dots."""
    wanted = pattern.split(".") if pattern else []
    end = len(wanted)

    def with_skipped_hashes(position: int) -> set[int]:
        positions = {position}
        while position < end and wanted[position] == "#":
            position += 1
            positions.add(position)
        return positions

    positions = with_skipped_hashes(0)
    for word in routing_key.split(".") if routing_key else []:
        reached: set[int] = set()
        for position in positions:
            if position == end:
                continue
            if wanted[position] == "#":
                reached |= with_skipped_hashes(position)
            elif wanted[position] in ("*", word):
                reached |= with_skipped_hashes(position + 1)
        positions = reached
    return end in positions


class Bindings(Generic[Target]):
    """The bindings of one exchange. A target is named once however many of its patterns match."""

    def __init__(self, *, topic: bool) -> None:
        self._topic = topic
        self._bound: dict[tuple[str, Target], None] = {}
        self._routes: dict[str, tuple[Target, ...]] = {}

    def bind(self, pattern: str, target: Target) -> None:
        self._bound[pattern, target] = None
        self._routes.clear()

    def unbind(self, target: Target) -> None:
        self._bound = {key: None for key in self._bound if key[1] is not target}
        self._routes.clear()

    def targets(self, routing_key: str) -> tuple[Target, ...]:
        found = self._routes.get(routing_key)
        if found is None:
            bound = (
                target
                for pattern, target in self._bound
                if pattern == routing_key or (self._topic and matches(pattern, routing_key))
            )
            if len(self._routes) >= ROUTES_KEPT:
                self._routes.clear()
            found = self._routes[routing_key] = tuple(dict.fromkeys(bound))
        return found
