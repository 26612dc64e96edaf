"""Connections to one server, as many as the address allows; whoever finds none free waits for one."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost

from .address import Address


def pool(address: Address, host: str, port: int) -> BlockingConnectionPool:
    return blocking_pool(
        address,
        connection_class=SSLConnection if address.tls else Connection,
        host=host,
        port=port,
        **connection_options(address),
    )


def blocking_pool(address: Address, **options: Any) -> BlockingConnectionPool:
    return BlockingConnectionPool(
        max_connections=address.max_connections,
        timeout=address.timeout,
        db=address.database,
        username=address.username,
        password=address.password,
        # Not on timeouts: a server that is slow is not helped by a second copy of the call.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionLost,)),
        **options,
    )


def connection_options(address: Address) -> dict[str, Any]:
    """What connections to servers and to sentinels have in common."""
    options: dict[str, Any] = {
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
        "protocol": 2,
        "driver_info": None,  # else the driver parses its own package's metadata, and tells it, for each connection
    }
    if address.tls:
        options |= {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": address.ssl_ca_certs,
            "ssl_certfile": address.ssl_certfile,
            "ssl_keyfile": address.ssl_keyfile,
        }
    return options
