from __future__ import annotations

from typing import Any

import pytest

from callboard.metadata.errors import StoreRefused
from callboard.metadata.redis.address import Mode, parse
from callboard.runtime.urls import masked


@pytest.mark.parametrize(
    ("url", "hosts", "more"),
    [
        ("redis://", [("localhost", 6379)], {}),
        ("redis:///3", [("localhost", 6379)], {"database": 3}),
        ("redis://:p%40ss%2Fw%3Ard%25@host:1/2", [("host", 1)], {"password": "p@ss/w:rd%", "database": 2}),
        ("redis://us%3Aer:pass@[::1]:7/", [("::1", 7)], {"username": "us:er", "password": "pass"}),
        ("rediss://host?ssl_ca_certs=/etc/ca.pem", [("host", 6379)], {"tls": True, "ssl_ca_certs": "/etc/ca.pem"}),
        ("redis://host?timeout=0.5&max_connections=3", [("host", 6379)], {"timeout": 0.5, "max_connections": 3}),
        ("redis+cluster://a:1,b,[::1]:3", [("a", 1), ("b", 6379), ("::1", 3)], {"mode": Mode.CLUSTER}),
        ("rediss+cluster://a", [("a", 6379)], {"mode": Mode.CLUSTER, "tls": True}),
        ("redis+sentinel://a,b:2", [("a", 26379), ("b", 2)], {"mode": Mode.SENTINEL, "service": "mymaster"}),
        (
            "redis+sentinel://u:p@a/sh%20op/4?sentinel_username=s&sentinel_password=q",
            [("a", 26379)],
            {"service": "sh op", "database": 4, "password": "p", "sentinel_username": "s", "sentinel_password": "q"},
        ),
    ],
)
def test_a_url_says_where_a_redis_is(url: str, hosts: list[tuple[str, int]], more: dict[str, Any]) -> None:
    address = parse(url)
    assert list(address.hosts) == hosts
    assert {name: getattr(address, name) for name in more} == more


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://a,b", r"for a cluster begin it with redis\+cluster://"),
        ("redis+cluster://a/3", "no database but 0"),
        ("redis+sentinel://a/b/c", "must be the master's name and, if any, a database number"),
        ("redis://user:pa/ss@host", "cannot be read.*percent-encoded"),
        ("redis://host?sentinel_password=x", r"sentinel_password needs redis\+sentinel://"),
        ("redis://host?tiemout=1", "not known: tiemout"),
    ],
)
def test_one_that_cannot_be_used_says_what_to_change(url: str, sentence: str) -> None:
    with pytest.raises(StoreRefused, match=sentence):
        parse(url)


def test_the_name_of_an_address_holds_no_credentials() -> None:
    address = parse("rediss+sentinel://user:hunter2@a,b:2/shop/4?sentinel_password=hunter2")
    assert address.name == "rediss+sentinel://a:26379,b:2/shop/4"
    assert "hunter2" not in repr(address)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://user:hunter2@host:1/0?timeout=3", "redis://***@host:1/0"),
        ("redis+sentinel://:hunter2@a,b:2/shop/0?sentinel_password=hunter2", "redis+sentinel://***@a,b:2/shop/0"),
        ("mongodb://u:hunter2@a:1,b:2/jobs?replicaSet=x", "mongodb://***@a:1,b:2/jobs"),
        ("amqps://u:hunter2@[::1]:5671/%2f", "amqps://***@[::1]:5671/%2f"),
        ("memory://", "memory://"),
        ("user:hunter2@host", "***"),
        ("redis://user:hunt/er2hunter2@host", "redis://***"),
        ("redis://user:hunter2#@host", "redis://***"),
        ("redis://user:hunter2?@host", "redis://***"),
        ("redis://user:hunter2", "redis://***"),
        ("redis://user:12?34@host", "redis://***"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert masked(url) == shown
