"""What compose/secrets/make.py makes: another password for each role and each stack, the same at each start."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

COMPOSE = Path(__file__).parents[2] / "compose"
FOLDERS = ("rabbitmq", "store", "actors", "intake", "producer")


def made(root: Path, kind: str = "redis") -> dict[str, str]:
    """By its path below `root`, what each file holds."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    runpy.run_path(str(COMPOSE / "secrets" / "make.py"))["main"](root, kind)
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_second_start_finds_what_the_first_one_made(tmp_path: Path) -> None:
    assert made(tmp_path) == made(tmp_path)


@pytest.mark.parametrize(("kind", "count"), [("redis", 5), ("mongodb", 6)])
def test_no_two_roles_and_no_two_stacks_share_a_password(tmp_path: Path, kind: str, count: int) -> None:
    first, second = made(tmp_path / "first", kind), made(tmp_path / "second", kind)
    names = [name for name in first if name.endswith(("password", "erlang-cookie"))]

    passwords = [*(first[name] for name in names), *(second[name] for name in names)]

    assert len(names) == count
    assert len(set(passwords)) == len(passwords)
    assert min(len(password) for password in passwords) >= 32


def test_the_files_of_the_servers_hold_no_password_in_clear(tmp_path: Path) -> None:
    files = made(tmp_path)
    for server, name in (("rabbitmq", "definitions.json"), ("store", "users.acl")):
        text = files[f"{server}/{name}"]
        assert not [kept for kept in files if kept.endswith("password") and files[kept] in text]


def test_a_producer_may_write_submissions_and_nothing_else(tmp_path: Path) -> None:
    definitions = json.loads(made(tmp_path)["rabbitmq/definitions.json"])
    (producer,) = [one for one in definitions["permissions"] if one["user"] == "producer"]

    assert (producer["configure"], producer["write"], producer["read"]) == ("^$", r"^callboard\.submit$", "^$")
    assert "callboard_store" not in [path.name for path in (tmp_path / "producer").iterdir()]
    assert {user["tags"] for user in definitions["users"]} == {""}


@pytest.mark.parametrize(("kind", "scheme"), [("redis", "redis"), ("mongodb", "mongodb")])
def test_the_actors_are_told_where_the_store_is(tmp_path: Path, kind: str, scheme: str) -> None:
    files = made(tmp_path, kind)

    assert files["actors/callboard_store"].startswith(f"{scheme}://callboard:{files['store/password']}@store:")
    assert files["intake/callboard_store"] == files["actors/callboard_store"]
    assert [name for name in files if "root" in name] == (["store/root-password"] if kind == "mongodb" else [])


def test_no_file_of_the_stack_names_a_password() -> None:
    given = re.compile(
        r"(?i)(pass(word)?|secret|cookie)\w*\s*[:=]\s*[\"']?(?!/)[A-Za-z0-9+/_-]{6,}[\"']?\s*$", re.MULTILINE
    )
    for path in [*COMPOSE.glob("*.yaml"), *COMPOSE.glob("*.conf"), *COMPOSE.glob("*.sh"), COMPOSE / "Dockerfile"]:
        assert given.findall(path.read_text()) == [], path
