"""A disk whose machine loses its power: what a server had not flushed is gone.

    with PowerDisk(tmp_path / "disk", megabytes=600) as disk:
        with RedisServer(disk.folder / "redis", appendfsync="always") as redis:
            disk.settle()           # what there is now is safe
            ...
            disk.lose_power(redis)  # the server is dead, its folder as the disk was
            redis.start()

An ext4 file system in a file in memory, mounted by a loop device. What was written to it and not flushed is in the
kernel's cache and not in that file, so a copy of the file, taken while the server stands still, is what a power cut
leaves. The copy is mounted in its place. Each time the disk proves that it forgets: by a file of its own, written anew
without a flush just before. Needs root and a loop device: `CannotMount` elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Protocol, Self

from faults.small_disk import CannotMount

MEMORY = Path("/dev/shm")  # a tmpfs: what was written there needs no flush
SECONDS = 60.0
SAFE, UNSAFE = b"safe  ", b"unsafe"


class Server(Protocol):
    def pause(self) -> None: ...

    def kill(self) -> None: ...


class PowerDisk:
    """`folder`: where it is mounted; made if need be."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        self.folder = folder
        self.losses = 0
        self._megabytes = megabytes
        self._keeper: subprocess.Popen[bytes] | None = None

    def settle(self) -> None:
        """Flush everything."""
        self._proof.write_bytes(SAFE)
        _run("sync", "-f", self.folder)

    def lose_power(self, server: Server) -> None:
        """At this moment, for everything that `server` has written since it flushed. The server is killed."""
        with self._proof.open("r+b", buffering=0) as file:
            file.write(UNSAFE)
        server.pause()
        _run("cp", "--sparse=always", self._image, self._copy)
        server.kill()
        self._unmount()
        os.replace(self._copy, self._image)
        self._mount()
        self.losses += 1
        assert self._proof.read_bytes() == SAFE, "what was not flushed is still there: this is no power loss"

    @property
    def _proof(self) -> Path:
        return self.folder / "proof"

    def _mount(self) -> None:
        _run("mount", "-o", "loop,commit=300", self._image, self.folder)

    def _unmount(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:  # children of a killed server take a moment to notice
            try:
                return _run("umount", self.folder)
            except CannotMount:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._images = TemporaryDirectory(prefix="callboard-power-", dir=MEMORY)
        self._image, self._copy = (Path(self._images.name) / name for name in ("disk", "copy"))
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; umount -l "$1"; rm -rf -- "$2"', "keeper", self.folder, self._images.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with self._image.open("wb") as file:
                file.truncate(self._megabytes << 20)
            _run("mkfs.ext4", "-q", "-F", self._image)
            self._mount()
        except BaseException:
            self._dismiss_keeper()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._dismiss_keeper()
        assert kind is not None or not self.folder.is_mount(), f"{self.folder} is still mounted"

    def _dismiss_keeper(self) -> None:
        """It takes everything down: here, and where the tests are killed, since the kernel then closes its pipe."""
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()
            self._keeper.wait(SECONDS)
        self._images.cleanup()


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise CannotMount(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
