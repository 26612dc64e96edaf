"""URLs that may hold a password, and how they are shown."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def scheme_of(url: str) -> str:
    return url.split("://", 1)[0].lower()


def masked(url: str) -> str:
    """The URL with its user information replaced by `***`, and without its query, which may hold secrets too."""
    if "://" not in url:  # not a URL, but "user:password@host" may be meant as one
        return "***"
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return f"{scheme_of(url)}://***"
    if not parts.scheme:
        return "***"
    if not parts.netloc:
        return f"{scheme_of(url)}://{parts.path}"
    user = "***@" if "@" in parts.netloc else ""
    return urlunsplit((parts.scheme, f"{user}{parts.hostname or ''}{port}", parts.path, "", ""))
