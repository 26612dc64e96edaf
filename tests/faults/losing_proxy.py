"""A proxy before a store that knows the requests apart, and loses the replies of each kind.

    async with LosingProxy("127.0.0.1", port, kinds_of=redis_kinds, times=2) as proxy:
        proxy.losing = True
        ...
        proxy.lost      # how many replies, by the kind of the request

A reply is lost as the end of a connection loses it: it has come from the server, so the request was carried out; then
both sides see the connection end. Only where no other kind was under way on that connection: what was lost is known. A
kind that was never alone so far is lost with those beside it: a server carries out what it was sent before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from callboard.metadata.mongo import names
from callboard.metadata.redis.scripts import read_scripts
from faults.proxy import Cut, Direction, Proxy, Unit

KindsOf = Callable[[bytes], Sequence[str]]

_SCRIPTS: Mapping[bytes, str] = {script.sha.encode(): name for name, script in read_scripts().items()}
_REDIS = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Z]+)\r\n(?:\$40\r\n([0-9a-f]{40})\r\n)?")
# The first element of a command in OP_MSG: its name, and a string, which is that of the collection.
_MONGO = re.compile(rb"\xdd\x07\x00\x00.{4}\x00.{4}\x02([A-Za-z]+)\x00.{4}[\w.-]+\x00", re.DOTALL)
_STATES = b"|".join(
    re.escape(state.encode())
    for state in (
        *(*names.JOBS, *names.SCHEDULES, names.TOMBSTONE),
        *(names.WORKER, names.DEAD_WORKER, names.QUEUE, names.STORE),
    )
)
_STATE = re.compile(rb"\x02\w+\x00.{4}(" + _STATES + rb")\x00", re.DOTALL)


def redis_kinds(data: bytes) -> Sequence[str]:
    """Names of the scripts that are called, and of commands."""
    return [_SCRIPTS.get(sha, command.decode()) for command, sha in _REDIS.findall(data)]


def mongo_kinds(data: bytes) -> Sequence[str]:
    """Commands, each with the states of records that it names."""
    states = sorted({state.decode() for state in _STATE.findall(data)})
    return [" ".join([command.decode(), *states]) for command in _MONGO.findall(data)]


class LosingProxy(Proxy):
    """`times`: how many replies of each kind."""

    def __init__(self, host: str, target_port: int, *, kinds_of: KindsOf, times: int) -> None:
        super().__init__(host, target_port)
        self.losing = False
        self.lost: Counter[str] = Counter()
        self._kinds_of = kinds_of
        self._times = times
        self._asked: dict[object, list[str]] = {}  # by connection, since it was answered last

    def next_cut(
        self, link: object, direction: Direction, data: bytes, frame_ends: list[int]
    ) -> tuple[Cut | None, int]:
        if direction is Direction.TO_SERVER:
            self._asked.setdefault(link, []).extend(self._kinds_of(data))
            return None, len(data)
        asked = set(self._asked.pop(link, ()))
        enough = self._times if len(asked) == 1 else 1
        wanted = {kind for kind in asked if self.lost[kind] < enough}
        if not self.losing or not wanted:
            return None, len(data)
        self.lost.update(wanted)
        return Cut(1, Unit.WRITES, direction), 0
