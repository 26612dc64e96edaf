"""The comparison: every system does the same work in every round, in an order that moves on from round to round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contestants import CALLBOARD, COMPARED, DRAMATIQ, RAW, Contestant
from msgspec import Struct
from scene import Scene

Figures = dict[str, list[float]]  # one value a round, or many where each job has one


class Sizes(Struct, frozen=True, kw_only=True):
    """Jobs in one measurement. Ours are more where they take less time, so that each takes about as long. `two`,
    `peer_two`: for two processes, of which the second begins later, and is waited for."""

    single: int
    spread: int
    callers: int
    bulk: int
    two: int
    peer: int
    peer_two: int
    latency: int


QUICK = Sizes(single=100, spread=3_000, callers=1_000, bulk=8_000, two=60_000, peer=1_000, peer_two=2_000, latency=40)
FULL = Sizes(single=400, spread=8_000, callers=4_000, bulk=40_000, two=100_000, peer=4_000, peer_two=6_000, latency=200)


class Results:
    """Figures by system and name, such as `one_worker_bulk.worker_us`."""

    def __init__(self) -> None:
        self.figures: dict[str, Figures] = {}

    def add(self, system: str, measurement: str, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.figures.setdefault(system, {}).setdefault(f"{measurement}.{name}", []).append(value)

    def extend(self, system: str, name: str, values: list[float]) -> None:
        self.figures.setdefault(system, {}).setdefault(name, []).extend(values)


def compare(scene: Scene, rounds: int, sizes: Sizes, results: Results, say: Callable[[str], None]) -> None:
    for number in range(rounds):
        turn = number % len(COMPARED)
        for contestant in (*COMPARED[turn:], *COMPARED[:turn]):
            say(f"round {number + 1} of {rounds}: {contestant.name}")
            if contestant is CALLBOARD:
                ours(scene, sizes, results)
            else:
                peer(scene, contestant, sizes, results)
            scene.forget()
        say(f"round {number + 1} of {rounds}: {RAW.name}")
        raw(scene, sizes, results)


def ours(scene: Scene, sizes: Sizes, results: Results) -> None:
    def add(measurement: str, figures: dict[str, float]) -> None:
        results.add(CALLBOARD.name, measurement, figures)

    path = scene.marks(sizes.single + sizes.spread)
    add("enqueue_single", scene.produce(CALLBOARD, "single", sizes.single))
    scene.produce(CALLBOARD, "spread", sizes.spread, first=sizes.single)
    add("one_worker_single", scene.drain(CALLBOARD, path))

    path = scene.marks(sizes.callers + sizes.bulk)
    add("enqueue_callers", scene.produce(CALLBOARD, "callers", sizes.callers))
    add("enqueue_bulk", scene.produce(CALLBOARD, "bulk", sizes.bulk, first=sizes.callers))
    add("one_worker_bulk", scene.drain(CALLBOARD, path))
    check_kept(scene, sizes.single + sizes.spread + sizes.callers + sizes.bulk)

    path = scene.marks(sizes.spread)
    scene.produce(CALLBOARD, "spread", sizes.spread)
    plain = scene.beside(scene.namespace)
    plain.extra = {**scene.extra, "CALLBOARD_BROKER": f"{scene.broker.url}?frames=plain"}
    add("one_worker_plain", plain.drain(CALLBOARD, path))

    path = scene.marks(sizes.two)
    scene.produce(CALLBOARD, "bulk", sizes.two)
    add("two_workers", scene.drain(CALLBOARD, path, processes=2))
    latency(scene, CALLBOARD, sizes, results)


def check_kept(scene: Scene, expected: int) -> None:
    answer, _ = scene.run_script(CALLBOARD, "completed")
    if answer["completed"] != expected:
        raise RuntimeError(f"the store keeps {answer['completed']} completed jobs, not {expected}")


def peer(scene: Scene, contestant: Contestant, sizes: Sizes, results: Results) -> None:
    def add(measurement: str, figures: dict[str, float]) -> None:
        results.add(contestant.name, measurement, figures)

    path = scene.marks(sizes.single + sizes.peer)
    add("enqueue_single", scene.produce(contestant, "single", sizes.single))
    add("enqueue_bulk", scene.produce(contestant, "bulk", sizes.peer, first=sizes.single))
    drained = scene.drain(contestant, path)
    add("one_worker_single", drained)  # each job is a message of its own to them, however it was enqueued
    add("one_worker_bulk", drained)

    path = scene.marks(sizes.peer_two)
    scene.produce(contestant, "bulk", sizes.peer_two)
    add("two_workers", scene.drain(contestant, path, processes=2))
    latency(scene, contestant, sizes, results)
    if contestant is DRAMATIQ:
        latency(scene, contestant, sizes, results, how="confirmed")


def latency(scene: Scene, contestant: Contestant, sizes: Sizes, results: Results, *, how: str = "latency") -> None:
    answer = scene.latency(contestant, sizes.latency, how=how)
    results.extend(contestant.name, f"{how}.start", answer["start"])
    results.extend(contestant.name, f"{how}.result", answer["result"])
    for name, values in answer.items():
        results.add(contestant.name, how, {f"{name}_p50": percentile(values, 50)})


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def raw(scene: Scene, sizes: Sizes, results: Results) -> None:
    path: Path = scene.marks(sizes.single + sizes.peer)
    results.add(RAW.name, "enqueue_single", scene.produce(RAW, "single", sizes.single))
    results.add(RAW.name, "enqueue_bulk", scene.produce(RAW, "bulk", sizes.peer, first=sizes.single))
    messages = sizes.single + sizes.peer
    answer, used = scene.run_script(RAW, "consume", messages, marks=path)
    path.unlink()
    consumed = {**used.per(messages), "rate": messages / answer["seconds"], "worker_us": answer["cpu"] / messages * 1e6}
    results.add(RAW.name, "one_worker_single", consumed)
    results.add(RAW.name, "one_worker_bulk", consumed)
