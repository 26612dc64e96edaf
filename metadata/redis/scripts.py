"""The Lua scripts: `record.lua`, and other parts where they are needed, in front of each operation's own file; known to
the server by their SHA1."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from msgspec import Struct

_SHARED = "record.lua"
_SCHEDULES = ("timetable.lua",)
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
_NO_SCRIPTS = {_SHARED, *(part for parts in _PARTS.values() for part in parts)}


class Script(Struct, frozen=True):
    name: str
    text: str
    sha: str


@cache
def read_scripts() -> Mapping[str, Script]:
    """By name of the operation. Texts are constant: data reach a script only as KEYS and ARGV."""
    folder = files(__package__)
    scripts = {}
    for file in folder.iterdir():
        if file.name.endswith(".lua") and file.name not in _NO_SCRIPTS:
            name = file.name.removesuffix(".lua")
            parts = (_SHARED, *_PARTS.get(name, ()), file.name)
            text = "\n".join(folder.joinpath(part).read_text("utf-8") for part in parts)
            scripts[name] = Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    return MappingProxyType(scripts)
