"""Who talks to whom, drawn from what the actors declare: exchanges -> queues -> actors -> capabilities -> stores.

    text       for a terminal
    mermaid    for DESIGN.md, which a test compares with this module's answer
    json       the same as data

It needs no server: actors and stores are found through their entry points, and no store is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any

import msgspec
from msgspec import Struct

from ..brokers.topology import Names
from ..metadata.contract import CAPABILITIES, Store
from ..metadata.ends import Ends
from ..metadata.errors import StoreRefused
from .actor import Actor
from .errors import ConfigurationError
from .registry import STORES, actor_names, find_actor, make_store, store_class

APP = "app"  # the users' processes, which make jobs and wait for results; see producer.py and listener.py
_APP_PUBLISHES = ("jobs", "control")
_APP_USES = (Ends.__name__,)  # of the store, where it is offered


class Bound(Struct, frozen=True, kw_only=True):
    """A queue, bound to an exchange by routing keys; `readers` are actors, or the app."""

    queue: str
    exchange: str
    routing_keys: tuple[str, ...]
    readers: tuple[str, ...] = ()


class ExchangeWiring(Struct, frozen=True, kw_only=True):
    name: str
    type: str
    publishers: tuple[str, ...]
    queues: tuple[Bound, ...]


class ActorWiring(Struct, frozen=True, kw_only=True):
    """`uses`: capabilities that it can do without."""

    name: str
    requires: tuple[str, ...]
    uses: tuple[str, ...] = ()


class StoreWiring(Struct, frozen=True, kw_only=True):
    """`schemes` of one store's URLs. `missing`: why it can't be used here, where it can't."""

    schemes: tuple[str, ...]
    capabilities: tuple[str, ...] = ()
    missing: str | None = None


class Wiring(Struct, frozen=True, kw_only=True):
    exchanges: tuple[ExchangeWiring, ...]
    actors: tuple[ActorWiring, ...]
    capabilities: tuple[str, ...]
    stores: tuple[StoreWiring, ...]

    def offering(self, capability: str) -> tuple[str, ...]:
        """Stores that offer a capability, by the first scheme of their URLs."""
        return tuple(store.schemes[0] for store in self.stores if capability in store.capabilities)


def find_wiring(namespace: str = "callboard") -> Wiring:
    """Of the installed actors and stores."""
    return draw_from([find_actor(name) for name in actor_names()], namespace=namespace, stores=_installed_stores())


def draw_from(actors: Sequence[type[Actor]], *, namespace: str, stores: Sequence[StoreWiring]) -> Wiring:
    names = Names(namespace)
    base = names.exchanges()
    prefix = f"{namespace}."
    bound = [
        Bound(queue=binding.queue, exchange=binding.exchange, routing_keys=(binding.routing_key,))
        for binding in base.bindings
    ]
    bound += [
        Bound(
            queue=prefix + consumed.queue,
            exchange=prefix + consumed.exchange,
            routing_keys=tuple(key.replace("<kind>", actor.kind) for key in consumed.routing_keys),
            readers=(actor.kind,),
        )
        for actor in actors
        for consumed in actor.consumes
    ]
    bound.append(
        Bound(
            queue=names.listener("<boot>"),
            exchange=names.events,
            routing_keys=("<queue>.<final event>",),
            readers=(APP,),
        )
    )
    publishers = {prefix + name: [APP] for name in _APP_PUBLISHES}
    for actor in actors:
        for name in actor.publishes:
            publishers.setdefault(prefix + name, []).append(actor.kind)
    known = {exchange.name for exchange in base.exchanges}
    for name in {*publishers, *(one.exchange for one in bound)} - known:
        raise ConfigurationError(f"an actor declares the exchange {name!r}, which is not in brokers/topology.py")
    return Wiring(
        exchanges=tuple(
            ExchangeWiring(
                name=exchange.name,
                type=exchange.type,
                publishers=tuple(publishers.get(exchange.name, ())),
                queues=tuple(_merged(one for one in bound if one.exchange == exchange.name)),
            )
            for exchange in base.exchanges
        ),
        actors=tuple(ActorWiring(name=a.kind, requires=_names(a.requires), uses=_names(a.uses)) for a in actors),
        capabilities=tuple(capability.__name__ for capability in CAPABILITIES),
        stores=tuple(stores),
    )


def _names(capabilities: Iterable[type]) -> tuple[str, ...]:
    return tuple(capability.__name__ for capability in capabilities)


def _merged(bound: Iterable[Bound]) -> Iterable[Bound]:
    """One entry for a queue that several actors read; mailboxes stay apart, each being one actor's own."""
    merged: dict[tuple[str, tuple[str, ...]], Bound] = {}
    for one in bound:
        key = (one.queue, one.routing_keys)
        earlier = merged.get(key)
        merged[key] = (
            one if earlier is None else msgspec.structs.replace(earlier, readers=earlier.readers + one.readers)
        )
    return merged.values()


def _installed_stores() -> list[StoreWiring]:
    found: dict[object, StoreWiring] = {}
    for scheme in sorted(entry.name for entry in entry_points(group=STORES)):
        try:
            store = _store_of(scheme)
        except (ConfigurationError, StoreRefused) as error:  # its driver is not installed, or its URL is a special one
            found[scheme] = StoreWiring(schemes=(scheme,), missing=str(error))
            continue
        schemes = found[type(store)].schemes if type(store) in found else ()
        offered = {capability.__name__ for capability in store.capabilities}
        found[type(store)] = StoreWiring(
            schemes=(*schemes, scheme),
            capabilities=tuple(c.__name__ for c in CAPABILITIES if c.__name__ in offered),
        )
    return list(found.values())


def _store_of(scheme: str) -> Store:
    """Closed, of any address: what lives here has none, others have a host, or else a place on a disk."""
    if not store_class(f"{scheme}://").shared:
        return make_store(f"{scheme}://", namespace="callboard")
    try:
        return make_store(f"{scheme}://localhost", namespace="callboard")
    except StoreRefused:
        return make_store(f"{scheme}:///callboard", namespace="callboard")


# --- text ---------------------------------------------------------------------------------------------------------


def as_text(wiring: Wiring) -> str:
    lines = ["Exchanges, who publishes to them, and the queues bound to them", ""]
    for exchange in wiring.exchanges:
        lines.append(f"{exchange.name} ({exchange.type})  <-  {', '.join(exchange.publishers) or 'no actor here'}")
        for one in exchange.queues:
            readers = ", ".join(one.readers) or "people"
            lines += [f"    {', '.join(one.routing_keys)}", f"      -> {one.queue}  ->  {readers}"]
    width = max((len(actor.name) for actor in wiring.actors), default=0)
    lines += ["", "Actors and the capabilities of the store that they require", ""]
    for actor in wiring.actors:
        used = f"; used where offered: {', '.join(actor.uses)}" if actor.uses else ""
        lines.append(f"{actor.name:<{width}}  {', '.join(actor.requires)}{used}")
    lines += ["", "Capabilities and the installed stores that offer them", ""]
    width = max(map(len, wiring.capabilities))
    for capability in wiring.capabilities:
        lines.append(f"{capability:<{width}}  {', '.join(wiring.offering(capability)) or 'none'}")
    lines += [f"({store.missing})" for store in wiring.stores if store.missing]
    return "\n".join(lines)


# --- Mermaid ------------------------------------------------------------------------------------------------------


def as_mermaid(wiring: Wiring) -> str:
    nodes = _Nodes()
    lines = ["flowchart LR"]
    edges: list[str] = []
    app = nodes.new("p")
    people = {APP: app, **{actor.name: nodes.new("a") for actor in wiring.actors}}
    lines.append(f'  {app}(["{APP}"])')
    for exchange in wiring.exchanges:
        node = nodes.new("x")
        lines.append(f'  {node}{{{{"{_escaped(exchange.name)}<br>{exchange.type}"}}}}')
        edges += [f"  {people[publisher]} -.-> {node}" for publisher in exchange.publishers]
        for one in exchange.queues:
            queue = nodes.new("q")
            lines.append(f'  {queue}[("{_escaped(one.queue)}")]')
            edges.append(f'  {node} -- "{_escaped(", ".join(one.routing_keys))}" --> {queue}')
            edges += [f"  {queue} --> {people[reader]}" for reader in one.readers]
    lines += [f'  {people[actor.name]}["{_escaped(actor.name)}"]' for actor in wiring.actors]
    capabilities = {name: nodes.new("c") for name in wiring.capabilities}
    for name, node in capabilities.items():
        lines.append(f'  {node}[/"{name}<br>{", ".join(wiring.offering(name)) or "no store"}"/]')
    for actor in wiring.actors:
        edges += [f"  {people[actor.name]} ==> {capabilities[name]}" for name in actor.requires]
        edges += [f"  {people[actor.name]} -. if offered .-> {capabilities[name]}" for name in actor.uses]
    edges += [f"  {app} -. if offered .-> {capabilities[name]}" for name in _APP_USES if name in capabilities]
    return "\n".join(lines + edges)


class _Nodes:
    """Names of nodes: one letter for their kind and a number."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def new(self, kind: str) -> str:
        self._used[kind] = self._used.get(kind, 0) + 1
        return f"{kind}{self._used[kind]}"


def _escaped(text: str) -> str:
    """Mermaid writes characters that it or HTML would read otherwise as `#name;`."""
    names = {"#": "#35;", "<": "#lt;", ">": "#gt;", '"': "#quot;"}
    return "".join(names.get(character, character) for character in text)


def as_data(wiring: Wiring) -> Any:
    return msgspec.to_builtins(wiring)
