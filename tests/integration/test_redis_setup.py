"""How a Redis is set up decides whether the store opens, what it calls durable, and what it warns about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from callboard.metadata.errors import StoreError, StoreRefused, StoreUnavailable
from callboard.metadata.redis import RedisStore
from integration.redis_private import private_redis
from redis_space import RedisSpace


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
        private_redis(tmp_path, cluster_enabled="yes") as server,
        pytest.raises(StoreRefused, match="cluster-enabled"),
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


def _certificate(folder: Path, name: str, *, signer: str | None = None, host: str = "localhost") -> None:
    """<name>.pem and <name>.key in `folder`, an authority of its own or signed by one."""
    base = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    more = ["-addext", f"subjectAltName=DNS:{host}"]
    if signer:
        more += ["-CA", str(folder / f"{signer}.pem"), "-CAkey", str(folder / f"{signer}.key")]
        more += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*base, *files, *more], check=True, capture_output=True)


async def test_certificates_are_verified(tmp_path: Path) -> None:
    _certificate(tmp_path, "authority")
    _certificate(tmp_path, "stranger")
    _certificate(tmp_path, "server", signer="authority")
    port = private_redis(tmp_path / "any").port
    server = private_redis(
        tmp_path / "tls", tls_port=str(port), tls_cert_file=str(tmp_path / "server.pem"),
        tls_key_file=str(tmp_path / "server.key"), tls_ca_cert_file=str(tmp_path / "authority.pem"),
        tls_auth_clients="no",
    )  # fmt: skip
    with server:
        good = f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'authority.pem'}"
        store = RedisStore.from_url(good, namespace="any")
        await store.open()
        await store.ping()
        await store.close()
        for bad in (
            f"rediss://localhost:{port}/0",
            f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'stranger.pem'}",
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'authority.pem'}",
        ):
            with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
                await RedisStore.from_url(bad, namespace="any").open()
