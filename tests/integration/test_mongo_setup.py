"""How a MongoDB is set up, and what its user may do, decides whether the store opens and what is said about it."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest
import pytest_asyncio
from pymongo import MongoClient

from callboard.metadata.ends import Ends
from callboard.metadata.errors import StoreError, StoreRefused, StoreUnavailable
from callboard.metadata.mongo import MongoStore
from callboard.metadata.standing import StandingClaims
from callboard.runtime.cli.doctor import exit_code
from callboard.runtime.clock import SystemClock
from callboard.runtime.diagnosis import Finding, diagnose
from callboard.runtime.settings import load_settings
from callboard.runtime.testing.store_fault_cases import CASES, Ground, operations
from integration.redis_private import require
from mongo_space import CLAIM_WINDOW
from servers import MongoServer

COMPOSE_USER = runpy.run_path(str(Path(__file__).parents[2] / "compose" / "secrets" / "mongodb_user.py"))
ROOT, PASSWORD = "root:hunter2", "correct"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """It asks for credentials; its users are root and that of the stack in compose/."""
    with require(lambda: MongoServer(tmp_path_factory.mktemp("mongo"), auth="")) as server:
        with MongoClient[dict[str, Any]](server.url) as client:
            user, _, password = ROOT.partition(":")
            client.admin.command("createUser", user, pwd=password, roles=["root"])
        with _as_root(server) as client:
            COMPOSE_USER["make"](client, PASSWORD)
        yield server


def _as_root(server: MongoServer) -> MongoClient[dict[str, Any]]:
    return MongoClient[dict[str, Any]](f"mongodb://{ROOT}@127.0.0.1:{server.port}/?directConnection=true")


def _url(port: int, user: str = f"callboard:{PASSWORD}", **options: str) -> str:
    given = "".join(f"&{name}={value}" for name, value in options.items())
    return f"mongodb://{user}@127.0.0.1:{port}/callboard?directConnection=true{given}"


async def _diagnosed(url: str) -> dict[str, Finding]:
    settings = load_settings(broker="memory://", store=url, namespace=f"test-{uuid4().hex}")
    found = await diagnose(settings, SystemClock(), audit=False)
    return {one.check: one for one in found if one.about == "store"}


# -- too old -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _played(server: MongoServer, told: Mapping[bytes, bytes]) -> AsyncIterator[int]:
    """The port of a server that says something else, of the same length, about itself: none that old is to be had."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pass_on(reader, onward_writer, {}))
                ways.create_task(_pass_on(onward_reader, writer, told))
        except* OSError:
            pass  # the other end was reset

    playing = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with playing:
        yield playing.sockets[0].getsockname()[1]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: Mapping[bytes, bytes]) -> None:
    """Message by message; each begins with its length."""
    try:
        while True:  # ends with the connection
            head = await reader.readexactly(4)
            rest = await reader.readexactly(int.from_bytes(head, "little") - 4)
            for true, other in told.items():
                rest = rest.replace(true, other)
            writer.write(head + rest)
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    finally:
        writer.close()


def _text(name: bytes, value: str) -> bytes:
    """A member of a document, as BSON."""
    return b"\2%b\0%b%b\0" % (name, (len(value) + 1).to_bytes(4, "little"), value.encode())


def _wire(version: int) -> bytes:
    return b"\x10maxWireVersion\0" + version.to_bytes(4, "little")


@pytest.fixture
def versions(server: MongoServer) -> tuple[str, str, int]:
    """Of the server, of its features, and of how it is spoken to."""
    with _as_root(server) as client:
        features = client.admin.command("getParameter", featureCompatibilityVersion=1)["featureCompatibilityVersion"]
        wire = int(client.admin.command("hello")["maxWireVersion"])
        return str(client.server_info()["version"]), str(features["version"]), wire


@pytest.mark.parametrize(
    ("older", "sentence"),
    [
        ("version", "MongoDB 4.{rest} is too old: use 5.0 or later"),
        ("features", "its featureCompatibilityVersion is 4.0, so MongoDB {version} works as one that is too old"),
        ("wire", "must not be used as it is: the MongoDB at 127.0.0.1:{port} is too old: use 5.0 or later"),
    ],
)
async def test_a_server_that_is_too_old_or_works_as_one_is_refused_in_a_sentence_and_by_doctor(
    server: MongoServer, versions: tuple[str, str, int], older: str, sentence: str
) -> None:
    version, features, wire = versions
    rest = version.partition(".")[2]
    told = {
        "version": {_text(b"version", version): _text(b"version", f"4.{rest}")},
        "features": {_text(b"version", features): _text(b"version", "4.0")},
        "wire": {_wire(wire): _wire(6)},  # the driver knows none that old
    }
    async with _played(server, told[older]) as port:
        expected = sentence.format(version=version, rest=rest, port=port)
        url = _url(port, ROOT, authSource="admin")
        with pytest.raises(StoreRefused) as refused:
            await MongoStore.from_url(url, namespace="too-old").open()
        assert expected in str(refused.value)
        found = await _diagnosed(url)
    assert expected in found["reachable"].message
    assert exit_code(list(found.values())) == 2
    assert "hunter2" not in f"{refused.value}{found}"
    with _as_root(server) as client:
        assert "too-old.jobs" not in client.callboard.list_collection_names()


async def test_a_wrong_password_is_an_error_of_doctor_that_does_not_show_it(server: MongoServer) -> None:
    found = await _diagnosed(_url(server.port, "callboard:hunter3"))
    assert "refused the credentials" in found["reachable"].message
    assert exit_code(list(found.values())) == 2
    assert "hunter3" not in str(found)


# -- by DNS ------------------------------------------------------------------------------------------------------------


class NameServer(asyncio.DatagramProtocol):
    """Knows the servers of `db.0.0.1`: 127.0.0.1, whose last three parts are its domain, as MongoDB wants it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = dns.message.make_response(dns.message.from_wire(data))
        name = answer.question[0].name.to_text()
        if name == "_mongodb._tcp.db.0.0.1.":
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", f"0 0 {self._port} 127.0.0.1."))
        elif name == "db.0.0.1.":
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", "authSource=callboard"))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), addr)


@pytest_asyncio.fixture
async def name_server(server: MongoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(server.port), local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], transport.get_extra_info("sockname")[1]
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    yield
    transport.close()


@pytest.mark.usefixtures("name_server")
async def test_servers_are_found_by_dns() -> None:
    store = MongoStore.from_url(f"mongodb+srv://callboard:{PASSWORD}@db.0.0.1/callboard?tls=false", namespace="by-dns")
    await store.open()
    await store.ping()
    await store.close()


@pytest.mark.usefixtures("name_server")
async def test_servers_that_dns_does_not_know_are_unavailable() -> None:
    store = MongoStore.from_url(f"mongodb+srv://callboard:{PASSWORD}@other.0.0.1/callboard", namespace="by-dns")
    with pytest.raises(StoreUnavailable, match=r"not found by DNS: .*_mongodb\._tcp\.other\.0\.0\.1") as refused:
        await store.open()
    assert PASSWORD not in str(refused.value)
    await store.close()


# -- rights ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _open(server: MongoServer) -> AsyncIterator[MongoStore]:
    """As the user of compose/, in a namespace of its own."""
    url = _url(server.port)
    store = MongoStore.from_url(url, namespace=f"test-{uuid4().hex}", claim_window=CLAIM_WINDOW)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _every_operation(server: MongoServer) -> int:
    """How many cases of operations were called, on a namespace that was new."""
    called, queues, now = 0, (f"queue-{n}" for n in count()), SystemClock().now()
    async with _open(server) as store:
        offered = {name for name, capability in operations().items() if capability in store.capabilities}
        for case in (case for name in sorted(offered) for case in CASES[name]):
            ground = Ground(store, next(queues), now)
            for step in case.before:
                await step(ground)
            await case.call(ground)
            called += 1
    return called


async def test_the_user_of_the_stack_may_do_whatever_the_contract_has(server: MongoServer) -> None:
    assert await _every_operation(server) == sum(
        len(cases) for name, cases in CASES.items() if operations()[name] not in (StandingClaims, Ends)
    )
    found = await _diagnosed(_url(server.port))
    told = [check for check in found if check.startswith("mongodb")]
    assert told == ["mongodb-standalone"]  # what it may not read is not held against the server
    assert exit_code(list(found.values())) == 1


@pytest.mark.parametrize("action", COMPOSE_USER["ACTIONS"])
async def test_without_one_of_its_rights_it_could_not(server: MongoServer, action: str) -> None:
    less = [one for one in COMPOSE_USER["ACTIONS"] if one != action]
    with _as_root(server) as client:
        privileges = [{"resource": {"db": "callboard", "collection": ""}, "actions": less}]
        client.callboard.command("updateRole", "callboard", privileges=privileges, roles=[])
        try:
            with pytest.raises(StoreError, match="does not let this user do what is needed"):
                await _former_index_and_every_operation(server)
        finally:
            COMPOSE_USER["make"](client, PASSWORD)


async def _former_index_and_every_operation(server: MongoServer) -> None:
    """A namespace of the former version, whose indexes are dropped, then a new one."""
    namespace = f"test-{uuid4().hex}"
    with _as_root(server) as client:
        client.callboard[f"{namespace}.jobs"].create_index([("queue", 1), ("state", 1), ("at", 1)], name="state")
    store = MongoStore.from_url(_url(server.port), namespace=namespace)
    await store.open()
    await store.close()
    await _every_operation(server)


def test_it_may_do_nothing_else(server: MongoServer) -> None:
    with MongoClient[dict[str, Any]](_url(server.port)) as client:
        known = client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    assert known["authenticatedUserRoles"] == [{"role": "callboard", "db": "callboard"}]
    (privilege,) = known["authenticatedUserPrivileges"]
    assert privilege["resource"] == {"db": "callboard", "collection": ""}
    assert sorted(privilege["actions"]) == sorted(COMPOSE_USER["ACTIONS"])
