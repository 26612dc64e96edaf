"""Where a MongoDB is and how it is used, read from a URL whose secrets never come out again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qsl, quote, unquote, urlencode

from msgspec import Struct
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri, parse_userinfo, split_hosts, split_options

from ..errors import StoreRefused

TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 16
DATABASE = "callboard"
DRIVERS = ("pymongo", "motor")
LONGEST_TIMEOUT = 86_400.0  # s; the driver takes no more than a billion milliseconds

_UNREADABLE = (
    "the MongoDB URL cannot be read: expected mongodb://user:password@host:port/database, with a port from 1 to 65535,"
    " an IPv6 address in [ ], and @ : / ? # % + in user and password percent-encoded"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%25\w+)?\]|[^\s\0:/\[\]%]+)(:[0-9]{1,5})?|[^\s\0:/]+\.sock")
_OPTION_NAME = re.compile(r"[A-Za-z_]{1,40}")

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
_BY_DNS = {"srvmaxhosts", "srvservicename", "srvallowedhostssuffix"}  # for mongodb+srv alone


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
    scheme = scheme.lower()
    if not separator or scheme not in ("mongodb", "mongodb+srv"):
        raise StoreRefused("the MongoDB URL must begin with mongodb:// or mongodb+srv://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    hosts = authority.rpartition("@")[2]
    if "@" in path:
        raise StoreRefused(_UNREADABLE)  # without its text: it may hold a password that was not encoded
    _check_authority(scheme, authority)
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not all(_OPTION_NAME.fullmatch(name) for name in options):
        raise StoreRefused(_UNREADABLE)  # the rest of a password with a ? in it
    try:
        timeout = float(options.pop("timeout", TIMEOUT_SECONDS))
        max_connections = int(options.pop("max_connections", MAX_CONNECTIONS))
    except ValueError:
        raise StoreRefused(
            "MongoDB URL options: timeout is a number of seconds, max_connections a whole number"
        ) from None
    if not (0.001 <= timeout <= LONGEST_TIMEOUT and max_connections > 0):
        raise StoreRefused(
            f"MongoDB URL options: timeout must be from 0.001 to {LONGEST_TIMEOUT:g} seconds, max_connections above 0"
        )
    driver = options.pop("driver", DRIVERS[0])
    if driver not in DRIVERS:
        raise StoreRefused(f"MongoDB URL options: driver is one of {', '.join(DRIVERS)}")
    _refuse({name.lower(): name for name in options})
    _refuse_unknown(options)
    database = unquote(path) or DATABASE
    if any(character in database for character in ' "$/.\\\0') or len(database.encode()) > 63:
        raise StoreRefused("the path of the MongoDB URL must be the name of a database")
    if path and "@" in authority and not any(name.lower() == "authsource" for name in options):
        # As the driver would take it from the path, were it still there.
        options["authSource"] = database
    _check_together(scheme, authority, options)
    return Address(
        url=f"{scheme}://{authority}/?{urlencode(options, quote_via=quote)}",
        name=f"{scheme}://{hosts}/{database}",
        database=database,
        timeout=timeout,
        max_connections=max_connections,
        driver=driver,
    )


def _check_authority(scheme: str, authority: str) -> None:
    """StoreRefused for users, passwords and hosts that the driver would not take."""
    user, at, hosts = authority.rpartition("@")
    names = hosts.split(",")
    if not all(_HOST.fullmatch(name) for name in names):
        raise StoreRefused(_UNREADABLE)
    with _refusals(_UNREADABLE):
        split_hosts(hosts)
    if at:
        with _refusals(
            "the user and the password in the MongoDB URL cannot be read: give a user, and percent-encode each of"
            " @ : / ? # % + in both (@ is %40, % is %25)"
        ):
            parse_userinfo(user)
    if scheme == "mongodb+srv" and (len(names) > 1 or ":" in hosts):
        raise StoreRefused(
            "the MongoDB URL cannot be used: mongodb+srv:// takes one host name, without a port, by which DNS names the"
            " servers; to name these yourself, begin it with mongodb://"
        )


def _check_together(scheme: str, authority: str, options: Mapping[str, str]) -> None:
    """StoreRefused for options that each can be used, but not with the others, or not with these hosts."""
    names = {name.lower(): name for name in options}
    by_dns = [names[name] for name in sorted(_BY_DNS & names.keys())]
    if by_dns and scheme != "mongodb+srv":
        raise StoreRefused(f"the MongoDB URL option {by_dns[0]} needs mongodb+srv://")
    if scheme == "mongodb+srv" and options.get(names.get("directconnection", ""), "false") != "false":
        raise StoreRefused(f"the MongoDB URL option {names['directconnection']} needs mongodb://, and one host")
    read = {name: value for name, value in options.items() if name not in by_dns}
    with _refusals(
        f"the options of the MongoDB URL do not go together, or not with its hosts: {', '.join(sorted(read))}"
    ):
        # As mongodb://, whatever it is: for mongodb+srv:// the driver would ask the DNS.
        parse_uri(f"mongodb://{authority}/?{urlencode(read, quote_via=quote)}")


@contextmanager
def _refusals(sentence: str) -> Iterator[None]:
    """What the driver raises or warns of becomes StoreRefused; its own words may hold what the URL held."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.simplefilter("error", DeprecationWarning)
            yield
    except (PyMongoError, OSError, ValueError, TypeError, Warning):
        raise StoreRefused(sentence) from None


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
        lacking = ": each compressor needs its package, but for zlib" if name.lower() == "compressors" else ""
        with _refusals(f"the MongoDB URL option {name} is not known, or its value cannot be used{lacking}"):
            try:
                split_options(urlencode({name: value}, quote_via=quote))
            except OSError as error:
                raise StoreRefused(
                    f"the file that the MongoDB URL option {name} names cannot be read: {error.strerror}"
                ) from None
