from __future__ import annotations

from pathlib import Path

import pytest

from callboard.metadata.errors import StoreRefused
from callboard.metadata.mongo import MongoStore
from callboard.metadata.mongo.address import parse

UNREADABLE = "cannot be read: expected mongodb://.*percent-encoded"
PERCENT = "user and the password .* percent-encode each of"


@pytest.mark.parametrize(
    ("url", "handed_on", "name"),
    [
        ("mongodb://localhost", "mongodb://localhost/?", "mongodb://localhost/callboard"),
        ("MongoDB://h:1/jobs", "mongodb://h:1/?", "mongodb://h:1/jobs"),
        ("mongodb://[::1]:7,b/jobs?tls=true", "mongodb://[::1]:7,b/?tls=true", "mongodb://[::1]:7,b/jobs"),
        ("mongodb://%2Ftmp%2Fm.sock/", "mongodb://%2Ftmp%2Fm.sock/?", "mongodb://%2Ftmp%2Fm.sock/callboard"),
        ("mongodb://u:p%40%25@h/jobs", "mongodb://u:p%40%25@h/?authSource=jobs", "mongodb://h/jobs"),
        ("mongodb://u:p@h/jobs?authsource=admin", "mongodb://u:p@h/?authsource=admin", "mongodb://h/jobs"),
        ("mongodb+srv://db.h.org/?srvMaxHosts=3", "mongodb+srv://db.h.org/?srvMaxHosts=3", "mongodb+srv://db.h.org/callboard"),
    ],
)  # fmt: skip
def test_a_url_is_handed_on_to_the_driver_without_its_path(url: str, handed_on: str, name: str) -> None:
    address = parse(url)
    assert (address.url, address.name) == (handed_on, name)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mongodb://h:99999/db", UNREADABLE),
        ("mongodb://h:0/db", UNREADABLE),
        ("mongodb://[::1/db", UNREADABLE),
        ("mongodb://::1/db", UNREADABLE),
        ("mongodb://a,/db", UNREADABLE),
        ("mongodb://a b/db", UNREADABLE),
        ("mongodb://h%2fa/db", UNREADABLE),
        ("mongodb://u:hunt/er2@h/db", UNREADABLE),
        ("mongodb://u:12?hunter2@h/db", UNREADABLE),
        ("mongodb://u:hunt@er2@h/db", PERCENT),
        ("mongodb://u:hunt%er2@h/db", PERCENT),
        ("mongodb://u:hunt:er2@h/db", PERCENT),
        ("mongodb://:hunter2@h/db", PERCENT),
        ("mongodb+srv://u:hunt@er2@h.org/db", PERCENT),
        ("mongodb+srv://h.org:27017/db", r"mongodb\+srv:// takes one host name, without a port"),
        ("mongodb+srv://a.org,b.org/db", r"mongodb\+srv:// takes one host name, without a port"),
        ("mongodb+srv://h.org/db?directConnection=true", "directConnection needs mongodb://"),
        ("mongodb://h/db?srvMaxHosts=3", r"srvMaxHosts needs mongodb\+srv://"),
        ("mongodb://h/db?compressors=hunter2", "option compressors is not known.*package"),
        ("mongodb://h/db?tls=true&tlsCAFile=/hunter2", "file that .* option tlsCAFile names .*: No such file"),
        ("mongodb://h/db?tls=true&ssl=false", "do not go together, or not with its hosts: ssl, tls"),
        ("mongodb://a,b/db?directConnection=true", "not with its hosts: directConnection"),
        ("mongodb://h/db?replicaSet=a&replicaset=b", "do not go together.*: replicaSet, replicaset"),
        ("mongodb://h/db?timeout=inf", "timeout must be from 0.001 to 86400 seconds"),
    ],
)
def test_one_that_cannot_be_used_says_what_to_change_without_what_it_held(url: str, sentence: str) -> None:
    with pytest.raises(StoreRefused, match=sentence) as refused:
        parse(url)
    assert "urllib" not in str(refused.value)
    assert not any(part in str(refused.value) for part in ("hunt", "er2"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("?minPoolSize=100", "minPoolSize must be smaller"),
        ("?authMechanism=SCRAM-SHA-256", "SCRAM-SHA-256 requires a username"),
        ("?tls=true&tlsCAFile={file}", "cannot be used with the options of its URL"),
    ],
)
async def test_what_only_the_drivers_client_finds_is_refused_as_well(
    tmp_path: Path, options: str, sentence: str
) -> None:
    file = tmp_path / "no-certificate.pem"
    file.write_text("empty")
    store = MongoStore.from_url(f"mongodb://127.0.0.1:1/db{options.format(file=file)}", namespace="address")
    with pytest.raises(StoreRefused, match=sentence):
        await store.open()
