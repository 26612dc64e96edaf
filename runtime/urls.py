"""URLs that may hold a password, and how they are shown."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]*)(:\d{1,5})?")


def scheme_of(url: str) -> str:
    return url.split("://", 1)[0].lower()


def masked(url: str) -> str:
    """The URL with its user information replaced by `***`, and without its query, which may hold secrets too.

    What is no host, or may be the rest of a password that was not encoded, is not shown.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):  # no URL, but "user:password@host" may be meant as one
        return "***"
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    _, at, hosts = authority.rpartition("@")
    if "@" in rest[len(authority) :] or not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        return f"{scheme.lower()}://***"
    return f"{scheme.lower()}://{'***@' if at else ''}{hosts}{slash}{path}"
