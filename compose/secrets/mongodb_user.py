"""Makes the user that the actors are for this stack's MongoDB. It may do what the store does with its collections, and
nothing else: touch no other database, drop nothing, make no users, ask nothing about the server.

Run at each start, as the root user, whose password only this container and the server's see. A user and a role that are
there already become what stands here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymongo import MongoClient

DATABASE = "callboard"
USER = ROLE = "callboard"
ACTIONS = ("find", "insert", "update", "remove", "createIndex", "dropIndex", "listIndexes")
START_SECONDS = 120  # for the server to take connections, at its first start


def main(secrets: Path, host: str) -> None:
    """`secrets` has the files root-password and password."""
    root_password, password = (secrets / name for name in ("root-password", "password"))
    with MongoClient[dict[str, Any]](
        host,
        username="root",
        password=root_password.read_text(),
        directConnection=True,
        serverSelectionTimeoutMS=START_SECONDS * 1000,
    ) as client:
        make(client, password.read_text())


def make(client: MongoClient[dict[str, Any]], password: str) -> None:
    privileges = [{"resource": {"db": DATABASE, "collection": ""}, "actions": list(ACTIONS)}]
    _make(client, "role", ROLE, privileges=privileges, roles=[])
    _make(client, "user", USER, pwd=password, roles=[ROLE])


def _make(client: MongoClient[dict[str, Any]], kind: str, name: str, **what: object) -> None:
    database = client[DATABASE]
    known = database.command({f"{kind}sInfo": name})[f"{kind}s"]
    database.command({f"{'update' if known else 'create'}{kind.capitalize()}": name, **what})


if __name__ == "__main__":
    main(Path("/run/secrets"), "store")
