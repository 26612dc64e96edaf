"""The wiring that DESIGN.md shows is the one that the actors declare."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from callboard.metadata.contract import CAPABILITIES, Jobs
from callboard.runtime.actor import Actor, Consumes
from callboard.runtime.errors import ConfigurationError
from callboard.runtime.registry import actor_names, find_actor
from callboard.runtime.wiring import StoreWiring, as_mermaid, as_text, draw_from, find_wiring

DESIGN = Path(__file__).parent.parent.parent / "DESIGN.md"
BEGIN, END = "<!-- wiring -->", "<!-- /wiring -->"


class Echo(Actor):
    kind = "echo"
    consumes = (Consumes("echo.<queue>", "events", ("<kind>.#",)),)
    publishes: ClassVar[tuple[str, ...]] = ("dead",)
    requires = (Jobs,)

    async def run(self) -> None:
        """Never started here."""


class Lost(Echo):
    publishes = ("nowhere",)


@pytest.mark.skipif(not DESIGN.exists(), reason="there is no DESIGN.md yet")
def test_design_shows_the_wiring_as_the_actors_declare_it() -> None:
    text = DESIGN.read_text()
    assert text.count(BEGIN) == text.count(END) == 1, f"DESIGN.md must hold the wiring between {BEGIN} and {END}"
    shown = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == f"```mermaid\n{as_mermaid(find_wiring())}\n```", "python -m callboard wiring --format mermaid"


def test_what_an_actor_declares_is_drawn() -> None:
    drawn = draw_from([Echo], namespace="shop", stores=[StoreWiring(schemes=("memory",), capabilities=("Jobs",))])

    events = next(exchange for exchange in drawn.exchanges if exchange.name == "shop.events")
    echo = next(one for one in events.queues if "echo" in one.readers)
    dead = next(exchange for exchange in drawn.exchanges if exchange.name == "shop.dead")
    assert (echo.queue, echo.routing_keys) == ("shop.echo.<queue>", ("echo.#",))
    assert dead.publishers == ("echo",)
    assert [(actor.name, actor.requires) for actor in drawn.actors] == [("echo", ("Jobs",))]
    assert (drawn.offering("Jobs"), drawn.offering("Delays")) == (("memory",), ())


def test_an_exchange_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'shop\.nowhere'"):
        draw_from([Lost], namespace="shop", stores=[])


def test_every_installed_actor_and_capability_is_drawn() -> None:
    drawn = find_wiring()
    text = as_text(drawn)

    assert [actor.name for actor in drawn.actors] == actor_names()
    for name in actor_names():
        actor = find_actor(name)
        assert name in text
        for capability in actor.requires:
            assert capability.__name__ in text
        for exchange in actor.publishes:
            published = next(one for one in drawn.exchanges if one.name == f"callboard.{exchange}")
            assert name in published.publishers
    assert drawn.capabilities == tuple(capability.__name__ for capability in CAPABILITIES)
    assert "memory" in drawn.offering("Jobs")


def test_mermaid_nodes_are_named_before_they_are_joined_and_none_is_named_twice() -> None:
    lines = as_mermaid(find_wiring()).splitlines()
    joins = [line.split() for line in lines if any(arrow in line for arrow in (" --> ", " -.-> ", " ==> "))]
    named = [line.strip().split("[")[0].split("(")[0].split("{")[0] for line in lines[1 : len(lines) - len(joins)]]

    assert lines[0] == "flowchart LR"
    assert len(named) == len(set(named))
    assert {end for join in joins for end in (join[0], join[-1])} <= set(named)
    assert "<queue>" not in "".join(lines)  # it would be read as HTML
