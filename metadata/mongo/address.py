"""Where a MongoDB is and how it is used, read from a URL whose secrets never come out again."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlencode

from msgspec import Struct
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from ..errors import StoreRefused

TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 16
DATABASE = "callboard"
DRIVERS = ("pymongo", "motor")

# What would undo a promise: every write is acknowledged by a majority and journaled, every read comes from there.
_OURS = {
    "w", "wtimeoutms", "journal", "fsync", "readconcernlevel", "readpreference", "readpreferencetags",
    "maxstalenessseconds", "retrywrites", "retryreads", "timeoutms", "sockettimeoutms", "connecttimeoutms",
    "serverselectiontimeoutms", "maxpoolsize",
}  # fmt: skip
_UNVERIFIED = {
    "tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "tlsdisableocspendpointcheck",
    "ssl_cert_reqs", "ssl_match_hostname",
}  # fmt: skip


class Address(Struct, frozen=True, kw_only=True):
    """`timeout`: seconds for a server to be found, and for each answer. `name`: for messages, without credentials."""

    url: str
    name: str
    database: str
    timeout: float = TIMEOUT_SECONDS
    max_connections: int = MAX_CONNECTIONS
    driver: str = DRIVERS[0]

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def parse(url: str) -> Address:
    """`mongodb[+srv]://[user:password@]host[:port][,host...][/database][?option=value&...]`.

    Options of ours: timeout (seconds), max_connections, driver (pymongo; or motor, which must be installed then). The
    driver's own (replicaSet, authSource, tls, tlsCAFile ...)
    are handed on, but for those that this store sets itself and those that switch off the verification of certificates:
    StoreRefused, as for what cannot be read. No message holds what the URL held but the names of options.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("mongodb", "mongodb+srv"):
        raise StoreRefused("the MongoDB URL must begin with mongodb:// or mongodb+srv://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    hosts = authority.rpartition("@")[2]
    if not hosts or "@" in path or any(_is_bad(host) for host in hosts.split(",")):
        # Its text may hold a password with an @, / or : that was not encoded.
        raise StoreRefused(
            "the MongoDB URL cannot be read: expected mongodb://user:password@host:port/database, with @ : / in the"
            " password percent-encoded"
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    try:
        timeout = float(options.pop("timeout", TIMEOUT_SECONDS))
        max_connections = int(options.pop("max_connections", MAX_CONNECTIONS))
    except ValueError:
        raise StoreRefused(
            "MongoDB URL options: timeout is a number of seconds, max_connections a whole number"
        ) from None
    if not (timeout > 0 and max_connections > 0):
        raise StoreRefused("MongoDB URL options: timeout and max_connections must be above 0")
    driver = options.pop("driver", DRIVERS[0])
    if driver not in DRIVERS:
        raise StoreRefused(f"MongoDB URL options: driver is one of {', '.join(DRIVERS)}")
    _refuse({name.lower(): name for name in options})
    _refuse_unknown(options)
    database = unquote(path) or DATABASE
    if any(character in database for character in ' "$/.\\\0') or len(database.encode()) > 63:
        raise StoreRefused("the path of the MongoDB URL must be the name of a database")
    if path and "authSource" not in options and "@" in authority:
        # As the driver would take it from the path, were it still there.
        options["authSource"] = database
    handed_on = f"{scheme}://{authority}/?{urlencode(options, quote_via=quote)}"
    return Address(
        url=handed_on,
        name=f"{scheme}://{hosts}/{database}",
        database=database,
        timeout=timeout,
        max_connections=max_connections,
        driver=driver,
    )


def _is_bad(host: str) -> bool:
    name, _, port = host.rpartition(":") if ":" in host and not host.endswith("]") else (host, "", "")
    return not name or (bool(port) and not port.isdecimal())


def _refuse(options: dict[str, str]) -> None:
    if unverified := options.keys() & _UNVERIFIED:
        raise StoreRefused(
            f"the MongoDB URL option {options[min(unverified)]} is refused: certificates are always verified; name"
            " your authority with tlsCAFile=<path>"
        )
    if ours := options.keys() & _OURS:
        raise StoreRefused(
            f"the MongoDB URL option {options[min(ours)]} is refused: the store itself sets how writes are"
            " acknowledged (majority, journaled), where reads come from, and time limits (timeout=<seconds>)"
        )


def _refuse_unknown(options: dict[str, str]) -> None:
    """What the driver would pass over with a warning, or complain of with its value."""
    for name, value in options.items():
        try:
            parse_uri(f"mongodb://localhost/?{urlencode({name: value}, quote_via=quote)}", warn=False)
        except (PyMongoError, ValueError, TypeError):
            raise StoreRefused(f"the MongoDB URL option {name} is not known, or its value cannot be used") from None
