"""How a Redis is set up decides whether the store opens, what it calls durable, and what it warns about."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callboard.metadata.contract import Inspection
from callboard.metadata.errors import StoreError, StoreRefused, StoreUnavailable
from callboard.metadata.redis import RedisStore
from certificates import make_certificate
from integration.redis_private import private_redis
from redis_space import RedisSpace
from servers import free_port


async def _names(store: RedisStore) -> set[str]:
    return {check.name for check in await store.check()}


async def test_a_synced_append_only_file_is_durable(tmp_path: Path) -> None:
    with private_redis(tmp_path, appendfsync="always") as server:
        store = RedisSpace(server.url).store()
        await store.open()
        assert store.durable
        assert await _names(store) == set()
        await store.close()


@pytest.mark.parametrize(
    "options",
    [
        {"appendfsync": "everysec"},
        {"appendonly": "no"},
        {"appendfsync": "always", "no_appendfsync_on_rewrite": "yes"},
    ],
)
async def test_anything_less_is_not_durable_and_warned_about(tmp_path: Path, options: dict[str, str]) -> None:
    with private_redis(tmp_path, **options) as server:
        store = RedisSpace(server.url).store()
        await store.open()
        assert not store.durable
        assert await _names(store) == {"redis-durability"}
        await store.close()


async def test_settings_that_cannot_be_read_are_assumed_not_durable(tmp_path: Path) -> None:
    with private_redis(tmp_path, appendfsync="always") as server:
        space = RedisSpace(server.url)
        await space.command("ACL", "SETUSER", "default", "-config")
        store = space.store()
        await store.open()
        assert not store.durable
        assert [check.message for check in await store.check()] == [
            "CONFIG GET is denied: assuming that a power cut can lose answered writes"
        ]
        await store.close()


async def test_a_default_user_without_rights_is_warned_about(tmp_path: Path) -> None:
    with private_redis(tmp_path, appendfsync="always") as server:
        space = RedisSpace(server.url)
        await space.command("ACL", "SETUSER", "operator", "on", ">secret", "~*", "&*", "+@all")
        await space.command("ACL", "SETUSER", "default", "off", "nocommands")
        store = RedisSpace(server.url.replace("redis://", "redis://operator:secret@")).store()
        await store.open()
        assert await _names(store) == {"redis-default-user"}
        await store.close()
        server_side = RedisSpace(server.url.replace("redis://", "redis://operator:secret@"))
        await server_side.command("ACL", "SETUSER", "default", "off", "~*", "&*", "+@all")
        await store.open()
        assert await _names(store) == set()
        await store.close()


async def test_a_policy_that_evicts_is_refused_by_name(tmp_path: Path) -> None:
    with private_redis(tmp_path, maxmemory_policy="allkeys-lru") as server:
        space = RedisSpace(server.url)
        with pytest.raises(StoreRefused, match=r"maxmemory-policy is allkeys-lru.*noeviction"):
            await space.store().open()
        store = space.store("allow_eviction=true")
        await store.open()
        assert "redis-eviction" in await _names(store)
        await store.close()


async def test_a_replica_is_refused(tmp_path: Path) -> None:
    with (
        private_redis(tmp_path / "master") as master,
        private_redis(tmp_path / "replica", replicaof=f"127.0.0.1 {master.port}") as replica,
        pytest.raises(StoreRefused, match="role slave: connect to the master"),
    ):
        await RedisSpace(replica.url).store().open()


async def test_replicas_that_need_not_write_are_warned_about(tmp_path: Path) -> None:
    with private_redis(tmp_path / "master", repl_diskless_sync_delay="0") as master:
        space = RedisSpace(master.url)
        store = space.store()
        await store.open()
        with private_redis(tmp_path / "replica", replicaof=f"127.0.0.1 {master.port}"):
            assert await space.command("SET", f"{space.namespace}:seen", 1)
            assert await space.command("WAIT", 1, 10_000) == 1
            assert "redis-replication" in await _names(store)
        await store.close()


async def test_a_node_of_a_cluster_is_refused(tmp_path: Path) -> None:
    with (
        private_redis(tmp_path, cluster_enabled="yes", cluster_port=str(free_port())) as server,
        pytest.raises(StoreRefused, match=r"cluster-enabled yes.*begin it with redis\+cluster://"),
    ):
        await RedisSpace(server.url).store().open()


@pytest.mark.parametrize("credentials", [":wrong-hunter2", "nobody:wrong-hunter2", ""])
async def test_refused_credentials_are_a_fault_that_does_not_name_them(tmp_path: Path, credentials: str) -> None:
    with private_redis(tmp_path, requirepass="right-hunter2") as server:
        url = f"redis://{credentials}@127.0.0.1:{server.port}/0"
        store = RedisStore.from_url(url, namespace="any")
        with pytest.raises(StoreError) as refused:
            await store.open()
        chain, error = "", refused.value
        while error is not None:
            chain += f"{error!r} {error}"
            error = error.__cause__ or error.__context__
        assert "hunter2" not in chain + repr(store) + repr(vars(store))
        assert f"127.0.0.1:{server.port}" in str(refused.value)


async def test_the_right_password_opens(tmp_path: Path) -> None:
    with private_redis(tmp_path, requirepass="p@ss/w:rd%") as server:
        url = f"redis://:p%40ss%2Fw%3Ard%25@127.0.0.1:{server.port}/0"
        store = RedisStore.from_url(url, namespace="any")
        await store.open()
        await store.ping()
        await store.close()


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    server = private_redis(tmp_path)
    with pytest.raises(StoreUnavailable, match=str(server.port)):
        await RedisSpace(server.url).store().open()


async def _until_refused(url: str) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        await RedisStore.from_url(url, namespace="any").open()
    return refused.value.reason


async def test_certificates_are_verified(tmp_path: Path) -> None:
    authority, stranger = (make_certificate(tmp_path, name) for name in ("authority", "stranger"))
    certificate = make_certificate(tmp_path, "server", signer="authority")
    port = private_redis(tmp_path / "any").port
    server = private_redis(
        tmp_path / "tls", tls_port=str(port), tls_cert_file=str(certificate),
        tls_key_file=str(certificate.with_suffix(".key")), tls_ca_cert_file=str(authority), tls_auth_clients="no",
    )  # fmt: skip
    with server:
        good = f"rediss://localhost:{port}/0?ssl_ca_certs={authority}"
        store = RedisStore.from_url(good, namespace="any")
        await store.open()
        await store.ping()
        assert await store.get(Inspection).get("emails", ["job"]) == [None]
        await store.close()

        fix = "name the file of the authority that signed it with ssl_ca_certs=<path>"
        unknown = await _until_refused(f"rediss://localhost:{port}/0")
        assert unknown.startswith("its certificate is not trusted (")
        assert unknown.endswith(f"): {fix}")
        assert fix in await _until_refused(f"rediss://localhost:{port}/0?ssl_ca_certs={stranger}")
        other_host = await _until_refused(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}")
        assert other_host.startswith("its certificate is for another host (")


async def test_a_file_that_is_not_there_is_named() -> None:
    store = RedisStore.from_url("rediss://localhost/0?ssl_ca_certs=/nowhere/ca.pem", namespace="any")
    with pytest.raises(StoreRefused, match=r"ssl_ca_certs=/nowhere/ca\.pem cannot be read: No such file or directory"):
        await store.open()


async def test_a_server_that_is_too_old_is_refused_by_its_version() -> None:
    """It is played by a few lines: no such server is to be had."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            parts = []
            for _ in range(int(head[1:])):
                await reader.readline()
                parts.append((await reader.readline()).strip().upper())
            info = b"redis_version:5.0.7\r\nrole:master\r\n"
            answer = {
                b"INFO": b"$%d\r\n%b\r\n" % (len(info), info),
                b"CONFIG": b"*0\r\n",
                b"ACL": b"-ERR unknown command\r\n",
            }
            writer.write(answer.get(parts[0], b"+OK\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreRefused, match=r"Redis 5\.0\.7 is too old: use 6\.2 or later"):
            await RedisStore.from_url(f"redis://127.0.0.1:{port}/0", namespace="any").open()


async def test_a_namespace_in_a_layout_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        space = RedisSpace(server.url)
        await space.command("SET", f"{space.namespace}:epoch", "2:abc")
        with pytest.raises(StoreRefused, match="is kept in layout 2, and this version of Callboard knows layout 1"):
            await space.store().open()
        await space.command("SET", f"{space.namespace}:epoch", "abc")  # as the first version left it
        store = space.store()
        await store.open()
        assert store.epoch == "abc"
        await store.close()


async def test_a_user_who_may_not_run_scripts_is_told(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        await RedisSpace(server.url).command(
            "ACL", "SETUSER", "app", "on", ">hunter2", "~*", "+@all", "-script", "-evalsha", "-eval"
        )
        store = RedisStore.from_url(f"redis://app:hunter2@127.0.0.1:{server.port}/0", namespace="any")
        with pytest.raises(StoreError, match=r"does not let this user do what is needed: .*script") as refused:
            await store.open()
        assert "hunter2" not in str(refused.value)
