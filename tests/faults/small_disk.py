"""A file system of a few megabytes, for a server that shall run out of space.

    with SmallDisk(tmp_path / "data", megabytes=32) as disk:
        disk.fill()     # nothing more can be written there
        disk.free()     # and now it can

It is a tmpfs, whose mount needs root: `CannotMount` elsewhere. It goes with the block, also where the tests are killed:
a keeper sees to that (as with servers.OwnedProcess), since the kernel closes our end of its pipe whatever ends us.
"""

from __future__ import annotations

import errno
import subprocess
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

SECONDS = 30.0
STEPS = (1 << 20, 4096)  # bytes; tmpfs gives out pages of 4096


class CannotMount(Exception):
    """A file system cannot be mounted here; the message says why."""


class SmallDisk:
    """`folder`: where it is mounted; made if need be. What is in there is gone afterwards."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes
        self._keeper: subprocess.Popen[bytes] | None = None

    def fill(self) -> None:
        """Return when no page is left. A server may still write to the end of the pages that it has begun."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in STEPS:
                while _took(file, bytes(size)):
                    pass  # ends: there are so many megabytes

    def free(self) -> None:
        """Everything that `fill` took."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; umount -l "$1"', "keeper", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        options = f"size={self._megabytes}m,mode=0700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "callboard-tests", str(self.folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if mounted.returncode:
            self._unmount()
            raise CannotMount(f"no small file system can be mounted here: {mounted.stderr.strip()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._unmount()
        assert kind is not None or not self.folder.is_mount(), f"{self.folder} is still mounted"

    def _unmount(self) -> None:
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()
            self._keeper.wait(SECONDS)


def _took(file: FileIO, data: bytes) -> bool:
    try:
        file.write(data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True
