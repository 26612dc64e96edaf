"""Makes the passwords of this stack, once: a folder for each role, which only that role's containers see.

    /secrets/rabbitmq    definitions.json: users with their permissions, policies; erlang-cookie
    /secrets/store       password, of the actors' user; users.acl for Redis, root-password for MongoDB
    /secrets/actors      callboard_broker, callboard_store: settings of Callboard, one file each
    /secrets/intake      the same, of a user that may also answer submissions
    /secrets/producer    callboard_broker: of a user that may publish to callboard.submit and nothing else

What is there stays; `docker-compose down --volumes` takes it away, and the servers' data with it.
CALLBOARD_STORE_KIND: redis (default) or mongodb.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from pathlib import Path

# configure, write, read: what PROTOCOL.md gives a producer, and the names of Callboard for its own.
PERMISSIONS = {
    "actors": (r"^callboard\.", r"^callboard\.", r"^callboard\."),
    "intake": (r"^callboard\.", r"^(callboard\..*|amq\.default)$", r"^callboard\."),
    "producer": (r"^$", r"^callboard\.submit$", r"^$"),
}
INTAKE_POLICY = {
    "delivery-limit": 20,
    "dead-letter-exchange": "callboard.dead",
    "dead-letter-strategy": "at-least-once",
    "overflow": "reject-publish",
    "max-length-bytes": 1024**3,
}


def main(root: Path, kind: str) -> None:
    """`root` has a folder for each role, and one for each server."""
    passwords = {role: _password(root / role) for role in PERMISSIONS}
    store_password = _password(root / "store")
    if kind == "mongodb":
        _password(root / "store", "root-password")
    store = {
        "redis": f"redis://callboard:{store_password}@store:6379/0",
        "mongodb": f"mongodb://callboard:{store_password}@store:27017/callboard",
    }[kind]
    for role, password in passwords.items():
        _keep(root / role, "callboard_broker", f"amqp://{role}:{password}@broker:5672/")
        if role != "producer":
            _keep(root / role, "callboard_store", store)
    _keep(root / "rabbitmq", "definitions.json", json.dumps(_definitions(passwords), indent=2))
    if not (root / "rabbitmq" / "erlang-cookie").exists():
        _keep(root / "rabbitmq", "erlang-cookie", secrets.token_hex(20))
    # The default user cannot log in, but keeps its rights: with them Redis 7.0 reads its log again after a restart, and
    # drops every transaction that they deny.
    digest = hashlib.sha256(store_password.encode()).hexdigest()
    allowed = "~* &* +@all -@admin -@dangerous +info +config|get +acl|getuser +client"
    _keep(root / "store", "users.acl", f"user default off ~* &* +@all\nuser callboard on #{digest} {allowed}\n")


def _password(folder: Path, name: str = "password") -> str:
    kept = folder / name
    if not kept.exists():
        _keep(folder, name, secrets.token_urlsafe(24))
    return kept.read_text()


def _keep(folder: Path, name: str, text: str) -> None:
    """Whole or not at all; readable to the container's user, whichever it is: nobody else mounts the folder."""
    path = folder / name
    if path.exists() and path.read_text() == text:
        return
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.chmod(0o444)
    fresh.rename(path)


def _definitions(passwords: dict[str, str]) -> dict[str, object]:
    users = []
    for role, password in passwords.items():
        salt = hashlib.sha256(f"{role} {password}".encode()).digest()[:4]  # the same file at every start
        hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
        users.append(
            {
                "name": role,
                "password_hash": hashed,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
        )
    return {
        "vhosts": [{"name": "/"}],
        "users": users,
        "permissions": [
            {"user": role, "vhost": "/", "configure": configure, "write": write, "read": read}
            for role, (configure, write, read) in PERMISSIONS.items()
        ],
        "policies": [
            {
                "name": "callboard-intake",
                "vhost": "/",
                "pattern": r"^callboard\.intake$",
                "apply-to": "queues",
                "priority": 0,
                "definition": INTAKE_POLICY,
            }
        ],
        "exchanges": [],
        "queues": [],
        "bindings": [],
    }


if __name__ == "__main__":
    main(Path("/secrets"), os.environ.get("CALLBOARD_STORE_KIND", "redis"))
