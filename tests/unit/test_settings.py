from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from callboard.metadata.job import Keep
from callboard.runtime.errors import ConfigurationError
from callboard.runtime.settings import Retain, Settings, load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a callboard.toml, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CALLBOARD_{name.upper()}", raising=False)
    return tmp_path


def test_without_any_source_everything_lives_in_memory() -> None:
    settings = load_settings()
    assert settings.broker.get_secret_value() == settings.store.get_secret_value() == "memory://"
    assert (settings.namespace, settings.lease_seconds, settings.payload_limit) == ("callboard", 10.0, 1024 * 1024)


def test_an_argument_counts_before_the_environment_and_that_before_the_file(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "callboard.toml").write_text('namespace = "file"\nlease_seconds = 3\nmax_stalled = 7\n')
    monkeypatch.setenv("CALLBOARD_NAMESPACE", "environment")
    monkeypatch.setenv("CALLBOARD_LEASE_SECONDS", "4")
    settings = load_settings(namespace="argument")
    assert (settings.namespace, settings.lease_seconds, settings.max_stalled) == ("argument", 4.0, 7)


def test_a_folder_of_secrets_counts_after_the_environment(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = elsewhere / "secrets"
    folder.mkdir()
    (folder / "callboard_store").write_text("redis://:kept@somewhere:6379/0\n")
    (folder / "callboard_namespace").write_text("file")
    monkeypatch.setenv("CALLBOARD_SECRETS_DIR", str(folder))
    monkeypatch.setenv("CALLBOARD_NAMESPACE", "environment")
    settings = load_settings()
    assert settings.store.get_secret_value() == "redis://:kept@somewhere:6379/0"
    assert settings.namespace == "environment"


def test_a_folder_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_SECRETS_DIR", "/nowhere")
    with pytest.raises(ConfigurationError, match="CALLBOARD_SECRETS_DIR=/nowhere: there is no such folder"):
        load_settings()


def test_an_argument_that_is_none_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_STORE", "redis://somewhere:6379/0")
    assert load_settings(store=None).store.get_secret_value() == "redis://somewhere:6379/0"


def test_every_wrong_setting_is_named_with_its_value() -> None:
    with pytest.raises(ConfigurationError, match=r"namespace: .*'a b'.*lease_seconds: .*0\.1") as refused:
        load_settings(namespace="a b", lease_seconds=0.1)
    assert str(refused.value).startswith("settings: ")


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match="lease_second: Extra inputs are not permitted"):
        load_settings(lease_second=5)


def test_an_unknown_line_of_the_file_is_named(elsewhere: Path) -> None:
    (elsewhere / "callboard.toml").write_text("lease_second = 5\n")
    with pytest.raises(ConfigurationError, match="lease_second"):
        load_settings()


@pytest.mark.parametrize("member", ["broker", "store"])
def test_an_address_without_a_scheme_is_refused_without_its_password(member: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{member}: .*is no URL .it has no '://'") as refused:
        load_settings(**{member: "user:hush@host:6379"})
    assert "hush" not in str(refused.value)


def test_passwords_stay_out_of_representations() -> None:
    settings = load_settings(broker="amqp://user:hush@host/", store="redis://:hush@host/0")
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)
    assert "hush" not in settings.model_dump_json()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().namespace = "other"


def test_retention_is_told_to_the_store_in_milliseconds() -> None:
    settings = load_settings(keep_completed_seconds=1.5, keep_completed_count=7)
    assert settings.keep_completed.keep() == Keep(age=1500, count=7)
    assert settings.keep_failed.keep(group="t") == Keep(age=7 * 24 * 3600 * 1000, count=100_000, group="t")
    assert Retain().keep() == Keep()
    assert load_settings(relay_grace_seconds=0.5).grace == 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"broker = amqp\n", r"callboard\.toml is no TOML: Invalid value \(at line 1, column 10\)"),
        (b'namespace = "\xff"\n', r"callboard\.toml, or a file in CALLBOARD_SECRETS_DIR, is not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_told(elsewhere: Path, content: bytes, message: str) -> None:
    (elsewhere / "callboard.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load_settings()


def test_a_list_in_the_environment_that_is_no_json_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_INTAKE_REPLY_PREFIXES", "replies.")
    with pytest.raises(ConfigurationError, match=r'"intake_reply_prefixes" from source "EnvSettingsSource"; .* JSON'):
        load_settings()
