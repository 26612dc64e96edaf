"""The Lua scripts: shared parts, `head.lua` first, in front of each operation's own file; known to the server by their
SHA1."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from msgspec import Struct

_HEAD, _SHARED = "head.lua", "record.lua"
_QUICK = ("enqueue", "claim", "finish")  # these have a quick part between the two
_SCHEDULES = ("timetable.lua",)


def _quick(name: str) -> str:
    return f"quick_{name}.lua"


_PARTS: Mapping[str, tuple[str, ...]] = {
    "enqueue": ("admission.lua",),
    "fire": ("admission.lua", "timetable.lua"),
    "due_schedules": _SCHEDULES,
    "get_schedules": _SCHEDULES,
    "page_schedules": _SCHEDULES,
    "pause_schedules": _SCHEDULES,
    "remove_schedules": _SCHEDULES,
    "resume_schedules": _SCHEDULES,
    "upsert_schedules": _SCHEDULES,
}
_NO_SCRIPTS = {
    _HEAD,
    _SHARED,
    *(_quick(name) for name in _QUICK),
    *(part for parts in _PARTS.values() for part in parts),
}


class Script(Struct, frozen=True):
    name: str
    text: str
    sha: str


@cache
def read_scripts(*, quick: bool = True) -> Mapping[str, Script]:
    """By name of the operation. Texts are constant: data reach a script only as KEYS and ARGV. `quick` False leaves the
    quick parts out, which changes no answer."""
    folder = files(__package__)
    scripts = {}
    for file in folder.iterdir():
        if file.name.endswith(".lua") and file.name not in _NO_SCRIPTS:
            name = file.name.removesuffix(".lua")
            ahead = (_HEAD, _quick(name)) if quick and name in _QUICK else (_HEAD,)
            parts = (*ahead, _SHARED, *_PARTS.get(name, ()), file.name)
            text = "\n".join(folder.joinpath(part).read_text("utf-8") for part in parts)
            scripts[name] = Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    return MappingProxyType(scripts)
