"""What the MongoDB store does while its server is killed, frozen, refused, or set up otherwise."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from callboard.metadata.contract import Ending, Finish, Inspection, Jobs, Outcome, Ticket, Verdict, Workers
from callboard.metadata.errors import StoreError, StoreRefused, StoreUnavailable
from callboard.metadata.job import Keep, NewJob
from callboard.metadata.mongo import MongoStore
from callboard.runtime.clock import SystemClock
from certificates import make_certificate
from integration.redis_private import require
from mongo_space import CLAIM_WINDOW
from servers import REPLICA_SET, MongoServer, ServerFailed, make_replica_set

QUEUE, BOOT = "emails", "boot"


def _server(folder: Path, **options: Any) -> MongoServer:
    return require(lambda: MongoServer(folder, **options))


@pytest_asyncio.fixture(params=[False, True], ids=["standalone", "replica set"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MongoServer]:
    server = _server(tmp_path, replica_set=request.param)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.kill)


@pytest_asyncio.fixture
async def store(server: MongoServer) -> AsyncIterator[MongoStore]:
    store = MongoStore.from_url(f"{server.url}&timeout=1", namespace="faults", claim_window=CLAIM_WINDOW)
    await store.open()
    yield store
    await store.close()


def _new(id: str) -> NewJob:
    return NewJob(id=id, queue=QUEUE, task="task", payload=b"payload", created_at=0)


async def _enqueue(store: MongoStore, *ids: str) -> None:
    now = SystemClock().now()
    await store.get(Jobs).enqueue([_new(id) for id in ids], now=now, grace=1_000)


async def _run(store: MongoStore, *ids: str) -> None:
    now, jobs = SystemClock().now(), store.get(Jobs)
    claimed = await jobs.claim(QUEUE, BOOT, [Ticket(id, 1) for id in ids], now=now, keep_expired=Keep())
    assert {answer.verdict for answer in claimed} <= {Verdict.CLAIMED, Verdict.MINE}
    outcomes = [Outcome(id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED) for id in ids]
    finished = await jobs.finish(QUEUE, outcomes, now=now, grace=0)
    assert {answer.finish for answer in finished} <= {Finish.DONE, Finish.RECORDED}


async def _beat(store: MongoStore) -> None:
    await store.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=SystemClock().now())


async def _until_answered(store: MongoStore) -> None:
    async with asyncio.timeout(30):
        while True:  # ends by the timeout
            try:
                return await store.ping()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def test_a_killed_server_loses_nothing_that_was_answered_and_the_store_comes_back(
    store: MongoStore, server: MongoServer
) -> None:
    await _beat(store)
    answered: list[str] = []

    async def produce(side: int) -> None:
        for n in range(100_000):
            batch = [f"{side}-{n}-{k}" for k in range(8)]
            try:
                await _enqueue(store, *batch)
                await _run(store, *batch[:4])
            except StoreUnavailable:
                return
            answered.extend(batch)

    producing = [asyncio.create_task(produce(side)) for side in range(8)]
    while len(answered) < 400:  # ends: batches go on being answered
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.kill)
    await asyncio.gather(*producing)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await asyncio.to_thread(server.start)
    await _until_answered(store)
    for start in range(0, len(answered), 128):
        part = answered[start : start + 128]
        found = await store.get(Inspection).get(QUEUE, part)
        ends = ["completed" if int(id.rpartition("-")[2]) < 4 else "waiting" for id in part]
        assert [job and str(job.state) for job in found] == ends


async def test_every_operation_may_be_repeated_over_a_restart(store: MongoStore, server: MongoServer) -> None:
    await _beat(store)
    await _enqueue(store, "job")
    await asyncio.to_thread(server.restart)
    await _until_answered(store)
    await _enqueue(store, "job")
    await _run(store, "job")
    await _run_again(store)
    assert await store.get(Inspection).audit(QUEUE) == []


async def _run_again(store: MongoStore) -> None:
    outcome = Outcome(id="job", dispatch=1, owner=BOOT, ending=Ending.COMPLETED)
    (answer,) = await store.get(Jobs).finish(QUEUE, [outcome], now=SystemClock().now(), grace=0)
    assert answer.finish is Finish.RECORDED


async def test_a_frozen_server_is_unavailable_in_bounded_time(store: MongoStore, server: MongoServer) -> None:
    await _enqueue(store, "before")
    await asyncio.to_thread(server.pause)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(StoreUnavailable):
                await _enqueue(store, "meanwhile")
    finally:
        server.cont()
    await _until_answered(store)
    await _enqueue(store, "meanwhile")
    found = await store.get(Inspection).get(QUEUE, ["before", "meanwhile"])
    assert [job and job.dispatch for job in found] == [1, 1]


async def test_a_cancelled_call_leaves_the_store_in_order(store: MongoStore) -> None:
    await _beat(store)
    for n in range(20):
        call = asyncio.create_task(_enqueue(store, f"cancelled-{n}"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await _enqueue(store, f"job-{n}")
    assert (await store.get(Inspection).counts([QUEUE]))[QUEUE].waiting >= 20
    assert await store.get(Inspection).audit(QUEUE) == []


async def test_what_needs_a_replica_set_is_said(store: MongoStore, server: MongoServer) -> None:
    names = [check.name for check in await store.check()]
    assert names == ([] if "replSet" in server.options else ["mongodb-standalone"])
    assert store.durable


async def test_an_unreachable_server_is_unavailable_when_the_store_is_opened() -> None:
    store = MongoStore.from_url("mongodb://user:hunter2@127.0.0.1:1/x?timeout=0.3", namespace="faults")
    with pytest.raises(StoreUnavailable) as refused:
        await store.open()
    assert "hunter2" not in str(refused.value)
    await store.close()


# A client that ends while it is connecting leaves that socket to the collector: PyMongo's, not ours to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning")
async def test_a_wrong_password_is_a_fault_that_does_not_show_it(tmp_path: Path) -> None:
    server = _server(tmp_path)
    await asyncio.to_thread(server.start)
    with MongoClient[dict[str, Any]](server.url) as client:
        client.admin.command("createUser", "worker", pwd="correct", roles=["readWriteAnyDatabase"])
    await asyncio.to_thread(server.stop)
    server.options["setParameter"] = "enableLocalhostAuthBypass=0"
    server.options["auth"] = ""
    await asyncio.to_thread(server.start)
    try:
        address = f"127.0.0.1:{server.port}/callboard?authSource=admin"
        for url, sentence in (
            (f"mongodb://worker:hunter2@{address}", "refused the credentials: .* check user, password and authSource"),
            (f"mongodb://{address}", "asks for credentials: .* give a user and a password"),
        ):
            store = MongoStore.from_url(url, namespace="faults")
            with pytest.raises(StoreError, match=sentence) as refused:
                await store.open()
            assert "hunter2" not in str(refused.value)
        right = MongoStore.from_url(f"mongodb://worker:correct@{address}", namespace="faults")
        await right.open()  # without the right to read the server's status
        assert right.durable
        await right.close()
    finally:
        await asyncio.to_thread(server.kill)
        gc.collect()


class Builds(CommandListener):
    """Counts the asks for indexes."""

    asked = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.asked += event.command_name == "createIndexes"

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


async def test_former_indexes_stay_until_those_that_another_process_is_building_are_there(tmp_path: Path) -> None:
    server, builds = _server(tmp_path, setParameter="enableTestCommands=1"), Builds()
    await asyncio.to_thread(server.start)
    client: Any = AsyncMongoClient(server.url, event_listeners=[builds])
    database = client["callboard"]
    jobs, hang = database["faults.jobs"], {"configureFailPoint": "hangAfterStartingIndexBuild"}
    stores = [MongoStore(client, database="callboard", namespace="faults") for _ in range(2)]
    try:
        async with asyncio.timeout(60):
            await jobs.insert_one({"name": "job", "queue": QUEUE})
            await jobs.create_index([("queue", 1), ("state", 1), ("at", 1)], name="state")
            await client.admin.command({**hang, "mode": "alwaysOn"})
            first = asyncio.create_task(stores[0].open())
            while "list" not in await jobs.index_information():
                await asyncio.sleep(0.02)
            second = asyncio.create_task(stores[1].open())
            while builds.asked < 3 and not second.done():
                await asyncio.sleep(0.02)
            assert {"list", "state"} <= (await jobs.index_information()).keys()
            await client.admin.command({**hang, "mode": "off"})
            await asyncio.gather(first, second)
            assert "state" not in await jobs.index_information()
    finally:
        for store in stores:
            await store.close()
        await client.close()
        await asyncio.to_thread(server.kill)


async def test_a_member_is_unavailable_before_its_replica_set_is_made_and_refused_as_a_secondary(
    tmp_path: Path,
) -> None:
    server = _server(tmp_path)
    server.options["replSet"] = REPLICA_SET
    await asyncio.to_thread(server.start)
    try:
        store = MongoStore.from_url(server.url, namespace="faults")
        with pytest.raises(StoreUnavailable, match=r"NotPrimary|not primary|NotYetInitialized"):
            await store.open()
        await asyncio.to_thread(make_replica_set, "127.0.0.1", server.port)
        with MongoClient[dict[str, Any]](server.url) as client:
            client.admin.command("replSetStepDown", 600, force=True)
            with pytest.raises(StoreRefused, match="this server is not the primary of its replica set"):
                await store.open()
            assert "faults.jobs" not in client.callboard.list_collection_names()
    finally:
        await asyncio.to_thread(server.kill)


async def test_a_server_without_a_journal_is_refused(tmp_path: Path) -> None:
    server = _server(tmp_path, nojournal="")
    try:
        await asyncio.to_thread(server.start)
    except ServerFailed as failed:
        if "nojournal" not in str(failed):
            raise
        pytest.skip("this mongod knows no --nojournal: since 6.1 there always is a journal")
    try:
        with pytest.raises(StoreRefused, match=r"it runs without a journal \(--nojournal\).*start it with one"):
            await MongoStore.from_url(server.url, namespace="faults").open()
    finally:
        await asyncio.to_thread(server.kill)


async def test_certificates_are_verified(tmp_path: Path) -> None:
    authority, stranger = (make_certificate(tmp_path, name) for name in ("authority", "stranger"))
    certificate = make_certificate(tmp_path, "server", signer="authority")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + certificate.with_suffix(".key").read_bytes())
    server = _server(tmp_path / "server", tlsMode="preferTLS", tlsCertificateKeyFile=str(both))
    server.options["tlsCAFile"] = str(authority)
    server.options["tlsAllowConnectionsWithoutCertificates"] = ""
    await asyncio.to_thread(server.start)
    try:
        address = f"mongodb://localhost:{server.port}/callboard?directConnection=true&timeout=2&tls=true"
        store = MongoStore.from_url(f"{address}&tlsCAFile={authority}", namespace="faults")
        await store.open()
        await store.ping()
        await store.close()
        for url in (f"{address}&tlsCAFile={stranger}", address.replace("localhost", "127.0.0.1")):
            # In a process of its own: the driver leaves the sockets of refused handshakes open.
            queues = await asyncio.create_subprocess_exec(
                sys.executable, "-W", "ignore", "-m", "callboard", "queues", "--store", url, stderr=subprocess.PIPE
            )
            _, said = await queues.communicate()
            assert queues.returncode == 69
            assert re.search(rb"its certificate is not accepted \(.*tlsCAFile=<path> names\n$", said)
    finally:
        await asyncio.to_thread(server.kill)
