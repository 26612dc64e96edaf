"""Certificates for servers of the tests, made by the openssl program: authorities of their own, and what these sign."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str, *, signer: str | None = None, host: str = "localhost") -> Path:
    """<name>.pem and <name>.key in `folder`: an authority of its own, or signed by one. For a day, for one host by its
    name or address.

    Returns the path of the certificate.
    """
    base = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    kind = "IP" if host.replace(".", "").isdecimal() else "DNS"
    more = ["-addext", f"subjectAltName={kind}:{host}"]
    if signer:
        more += ["-CA", str(folder / f"{signer}.pem"), "-CAkey", str(folder / f"{signer}.key")]
        more += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*base, *files, *more], check=True, capture_output=True)
    return folder / f"{name}.pem"
