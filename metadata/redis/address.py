"""Where a Redis is and how it is used, read from a URL whose secrets never come out again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from ..errors import StoreRefused

TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 8
SERVICE = "mymaster"  # what Redis's own sentinel.conf calls it

_UNVERIFIED = {"ssl_cert_reqs", "ssl_check_hostname"}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SENTINEL = ("sentinel_username", "sentinel_password")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(\d{1,5}))?")
_UNREADABLE = (
    "the Redis URL cannot be read: expected redis://user:password@host:port/database, with @ : / ? # in the password"
    " percent-encoded"
)
_OPTION_NAME = re.compile(r"[A-Za-z_]{1,40}")


class Mode(StrEnum):
    SERVER = ""
    CLUSTER = "+cluster"
    SENTINEL = "+sentinel"


_PORTS = {Mode.SERVER: 6379, Mode.CLUSTER: 6379, Mode.SENTINEL: 26379}


class Address(Struct, frozen=True, kw_only=True):
    """`hosts`: of the server, of some nodes of the cluster, or of the sentinels. `service`: what these call the master.

    `timeout`: seconds for a connection to be made and for each answer. `max_connections`: to each server.
    `allow_eviction`: see `RedisStore.check`.
    """

    mode: Mode = Mode.SERVER
    hosts: tuple[tuple[str, int], ...]
    service: str = SERVICE
    database: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: bool = False
    timeout: float = TIMEOUT_SECONDS
    max_connections: int = MAX_CONNECTIONS
    allow_eviction: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    @property
    def name(self) -> str:
        """For messages: without credentials."""
        hosts = ",".join(host_name(host, port) for host, port in self.hosts)
        service = f"/{self.service}" if self.mode is Mode.SENTINEL else ""
        return f"{'rediss' if self.tls else 'redis'}{self.mode}://{hosts}{service}/{self.database}"

    @property
    def host(self) -> str:
        return self.hosts[0][0]

    @property
    def port(self) -> int:
        return self.hosts[0][1]

    @property
    def files(self) -> Mapping[str, str]:
        """Paths by the options that name them."""
        return {option: path for option in _FILES if (path := getattr(self, option)) is not None}

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def host_name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Address:
    """The address in one of

        redis://[[user]:password@]host[:port][/database][?option=value&...]
        redis+cluster://[[user]:password@]host[:port][,host[:port]...][?...]
        redis+sentinel://[[user]:password@]host[:port][,host[:port]...][/service[/database]][?...]

    or the same with rediss, for TLS. Options: timeout (seconds), max_connections, allow_eviction (true, false); with
    rediss ssl_ca_certs, ssl_certfile, ssl_keyfile (paths); with sentinels sentinel_username, sentinel_password. Raises
    StoreRefused for anything else; certificates are always verified. No message holds more of the URL than the names
    of options.
    """
    scheme, separator, rest = url.partition("://")
    kind, plus, mode = scheme.lower().partition("+")
    if not separator or kind not in ("redis", "rediss") or plus + mode not in tuple(Mode):
        raise StoreRefused(
            "the Redis URL must begin with redis://, redis+cluster:// or redis+sentinel:// (for TLS: rediss)"
        )
    return _read(Mode(plus + mode), rest, tls=kind == "rediss")


def _read(mode: Mode, rest: str, *, tls: bool) -> Address:
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in path:
        raise StoreRefused(_UNREADABLE)
    user, _, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    service, database = _place(mode, path)
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = {**_numbers(options), **_texts(options, mode=mode, tls=tls)}
    if _UNVERIFIED & options.keys():
        raise StoreRefused("rediss:// always verifies certificates; name your authority with ssl_ca_certs=<path>")
    if options:
        # What is no name may be the rest of a password with a ? in it.
        names = ", ".join(sorted(name if _OPTION_NAME.fullmatch(name) else "(no name)" for name in options))
        raise StoreRefused(f"the Redis URL has options that are not known: {names}")
    address = Address(
        mode=mode,
        hosts=tuple(_hosts(hosts, _PORTS[mode])),
        service=service,
        database=database,
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=tls,
        **known,
    )
    if not (address.timeout > 0 and address.max_connections > 0):
        raise StoreRefused("Redis URL options: timeout and max_connections must be above 0")
    if mode is Mode.SERVER and len(address.hosts) > 1:
        raise StoreRefused(
            "the Redis URL names several hosts: for a cluster begin it with redis+cluster://, for sentinels with"
            " redis+sentinel://"
        )
    return address


def _hosts(text: str, default: int) -> Iterator[tuple[str, int]]:
    for part in text.split(","):
        found = _HOST.fullmatch(part)
        if found is None or int(found[2] or default) > 65_535 or (not found[1] and "," in text):
            raise StoreRefused(_UNREADABLE)  # without its text: a password may have been taken for a port
        yield found[1].strip("[]") or "localhost", int(found[2] or default)


def _place(mode: Mode, path: str) -> tuple[str, int]:
    """The sentinels' service and the number of the database."""
    service = SERVICE
    database = path.strip("/")
    if mode is Mode.SENTINEL:
        first, _, database = database.partition("/")
        service = unquote(first) or SERVICE
    if database and not (database.isdecimal() and len(database) < 6):
        raise StoreRefused(
            "the path of the Redis URL must be a database number"
            if mode is not Mode.SENTINEL
            else "the path of the Redis URL must be the master's name and, if any, a database number: /mymaster/0"
        )
    if mode is Mode.CLUSTER and int(database or 0):
        raise StoreRefused("a Redis Cluster has no database but 0: leave the path of the URL out")
    return service, int(database or 0)


def _numbers(options: dict[str, str]) -> dict[str, Any]:
    """Those that are not texts, taken out of `options`."""
    try:
        return {
            "timeout": float(options.pop("timeout", TIMEOUT_SECONDS)),
            "max_connections": int(options.pop("max_connections", MAX_CONNECTIONS)),
            "allow_eviction": {"true": True, "false": False}[options.pop("allow_eviction", "false")],
        }
    except (ValueError, KeyError):
        raise StoreRefused(
            "Redis URL options: timeout is a number of seconds, max_connections a whole number, allow_eviction true or"
            " false"
        ) from None


def _texts(options: dict[str, str], *, mode: Mode, tls: bool) -> dict[str, Any]:
    """Paths and credentials, taken out of `options`."""
    files = {name: options.pop(name) for name in _FILES if name in options}
    if files and not tls:
        raise StoreRefused(f"the Redis URL option {min(files)} needs rediss://")
    credentials = {name: options.pop(name) for name in _SENTINEL if name in options}
    if credentials and mode is not Mode.SENTINEL:
        raise StoreRefused(f"the Redis URL option {min(credentials)} needs redis+sentinel://")
    return files | credentials
