"""The Lua scripts: `record.lua` in front of each operation's own file, known to the server by their SHA1."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from msgspec import Struct

_SHARED = "record.lua"


class Script(Struct, frozen=True):
    name: str
    text: str
    sha: str


def read_scripts() -> Mapping[str, Script]:
    """By name of the operation. Texts are constant: data reach a script only as KEYS and ARGV."""
    folder = files(__package__)
    shared = folder.joinpath(_SHARED).read_text("utf-8")
    scripts = {}
    for file in folder.iterdir():
        if file.name.endswith(".lua") and file.name != _SHARED:
            name = file.name.removesuffix(".lua")
            text = f"{shared}\n{file.read_text('utf-8')}"
            scripts[name] = Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    return MappingProxyType(scripts)
