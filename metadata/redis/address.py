"""Where a Redis is and how it is used, read from a URL whose secrets never come out again."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from ..errors import StoreRefused

DEFAULT_PORT = 6379
TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 8

_UNVERIFIED = {"ssl_cert_reqs", "ssl_check_hostname"}
_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


class Address(Struct, frozen=True, kw_only=True):
    """`timeout`: seconds for a connection to be made and for each answer. `allow_eviction`: see `RedisStore.check`."""

    host: str
    port: int
    database: int
    username: str | None
    password: str | None
    tls: bool
    timeout: float = TIMEOUT_SECONDS
    max_connections: int = MAX_CONNECTIONS
    allow_eviction: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    @property
    def name(self) -> str:
        """For messages: without credentials."""
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def parse(url: str) -> Address:
    """`redis[s]://[[user]:password@]host[:port][/database][?option=value&...]`.

    Options: timeout (seconds), max_connections, allow_eviction (true, false), and for rediss ssl_ca_certs,
    ssl_certfile, ssl_keyfile (paths). Raises StoreRefused for anything else; certificates are always verified.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        # Its text may hold a password that was mistaken for a port.
        raise StoreRefused("the Redis URL cannot be read: expected redis://user:password@host:port/database") from None
    tls = parts.scheme == "rediss"
    if not tls and parts.scheme != "redis":
        raise StoreRefused("the Redis URL must begin with redis:// or rediss://")
    path = parts.path.strip("/")
    if path and not path.isdecimal():
        raise StoreRefused("the path of the Redis URL must be a database number")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    files = {name: options.pop(name) for name in _FILES & options.keys()}
    if files and not tls:
        raise StoreRefused(f"the Redis URL option {min(files)} needs rediss://")
    try:
        address = Address(
            host=parts.hostname or "localhost",
            port=port,
            database=int(path or 0),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=tls,
            timeout=float(options.pop("timeout", TIMEOUT_SECONDS)),
            max_connections=int(options.pop("max_connections", MAX_CONNECTIONS)),
            allow_eviction={"true": True, "false": False}[options.pop("allow_eviction", "false")],
            **files,
        )
    except (ValueError, KeyError):
        raise StoreRefused(
            "Redis URL options: timeout is a number of seconds, max_connections a whole number, allow_eviction true or"
            " false"
        ) from None
    if _UNVERIFIED & options.keys():
        raise StoreRefused("rediss:// always verifies certificates; name your authority with ssl_ca_certs=<path>")
    if options:
        raise StoreRefused(f"the Redis URL has options that are not known: {', '.join(sorted(options))}")
    if not (address.timeout > 0 and address.max_connections > 0):
        raise StoreRefused("Redis URL options: timeout and max_connections must be above 0")
    return address
