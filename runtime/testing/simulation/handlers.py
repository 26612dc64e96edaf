"""The app's tasks as a simulation runs them: each run is noted, and each step of a handler may be its process's last.

A task that is not async runs between two steps, in no time at all; so does one that has a process of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from msgspec import structs

from ...arguments import Bound, Signature
from ...context import Context
from ...task import Task
from .loop import awaited, current_process

if TYPE_CHECKING:
    from .world import World


class Steps:
    """Counts the steps of all handlers. `last`: the step after which its process is gone; 0: none."""

    def __init__(self, last: int = 0) -> None:
        self.made = 0
        self.last = last
        self.struck = False


def simulated(task: Task[..., Any], world: World, steps: Steps) -> Task[..., Any]:
    """A copy for workers of that world; who enqueues goes on with the task itself."""
    made = copy.copy(task)
    function = task.function
    made.is_async = True
    made.declared = structs.replace(task.declared, executor="auto")
    made.signature = _WithContext(task.signature)

    async def run(context: Context, *args: Any, **kwargs: Any) -> Any:
        awaited.set(True)
        noted = world.watch.began(context, current_process().name)
        try:
            if task.is_async:
                result = await _Stepwise(function(*args, **kwargs), steps, world)
            else:
                await _Stepwise(_nothing(), steps, world)
                result = function(*args, **kwargs)
                await _Stepwise(_nothing(), steps, world)
        except BaseException as error:
            if current_process().alive:
                noted.ended, noted.failed = world.loop.time(), type(error).__name__
            raise
        noted.ended = world.loop.time()
        return result

    made.function = run
    return made


class _WithContext(Signature):
    """Of the function, with the context in front of its arguments."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    def bind_json(self, args: bytes, kwargs: bytes) -> Bound:
        return _BoundWithContext(*structs.astuple(self._signature.bind_json(args, kwargs)))


class _BoundWithContext(Bound, frozen=True):
    def call_with(self, context: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super().call_with(context)
        return (context, *args), kwargs


class _Stepwise:
    """A coroutine, with a step counted before it begins, at each of its awaits, and after its end."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], steps: Steps, world: World) -> None:
        self._coroutine = coroutine
        self._steps = steps
        self._world = world

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        step: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731
        try:
            while True:
                yield from self._perhaps_the_last()
                try:
                    waits_for = step()
                except StopIteration as end:
                    yield from self._perhaps_the_last()
                    return end.value
                try:
                    said = yield waits_for
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step = _throwing(coroutine, error)
                else:
                    step = _sending(coroutine, said)
        finally:
            coroutine.close()

    def _perhaps_the_last(self) -> Generator[Any, Any, None]:
        steps = self._steps
        steps.made += 1
        if steps.made == steps.last:
            steps.struck = True
            loop = self._world.loop
            loop.crash(current_process())
            yield from loop.create_future()


def _throwing(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


def _sending(coroutine: Coroutine[Any, Any, Any], said: Any) -> Callable[[], Any]:
    return lambda: coroutine.send(said)


async def _nothing() -> None:
    pass
