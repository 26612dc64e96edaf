"""python readme_commands.py FOLDER: does what FOLDER/README.md tells its reader to do, in order, in that folder.

A line `<!-- run -->` before a fenced block of `sh` or `console` marks it as a thing to run; `<!-- run 300 -->` allows
it 300 seconds in place of 120. In `console` blocks the lines that begin with `$ ` are run and the others are what they
print. A line `<!-- file: app.py -->` before any block stores it under that name first. Each block is one
`bash -eu -o pipefail`; the first that fails or overruns ends the run with exit code 1. Commands meet an empty virtual
environment, made beside FOLDER, so that `pip install .` is a command like any other. A RabbitMQ and a Redis are found
or started as for a test (provision.py, so tests/ must be on PYTHONPATH), and are named in CALLBOARD_BROKER and
CALLBOARD_STORE.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from provision import RABBITMQ, REDIS, provide

BLOCK = re.compile(
    r"^<!-- (?:run(?: (?P<seconds>\d{1,4}))?|file: (?P<file>[\w./-]+)) -->\n+```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"^<!-- (?:run|file)", re.MULTILINE)


class ReadmeWrong(Exception):
    """A mark in the README is not followed by a block that can be run or stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """`text` is a script to run for at most `seconds`, or, where `file` is set, that file's content."""

    text: str
    seconds: int = 120
    file: str | None = None


def blocks(readme: str) -> list[Block]:
    """The marked blocks in their order. A mark without a fence of a known language raises `ReadmeWrong`."""
    found = list(BLOCK.finditer(readme))
    if len(found) != len(MARK.findall(readme)):
        raise ReadmeWrong(f"{len(MARK.findall(readme))} marks, but only {len(found)} stand before a fenced block")
    return [_block(match) for match in found]


def _block(match: re.Match[str]) -> Block:
    text, language = match["text"], match["language"]
    if match["file"]:
        return Block(text=text, file=match["file"])
    if language == "console":
        text = "".join(f"{line}\n" for line in _commands(text))
    elif language != "sh":
        raise ReadmeWrong(f"a block of {language!r} cannot be run: use sh or console")
    if not text.strip():
        raise ReadmeWrong("a block marked to run holds no command")
    return Block(text=text, seconds=int(match["seconds"] or 120))


def _commands(console: str) -> Iterator[str]:
    continued = False
    for line in console.splitlines():
        if continued or line.startswith("$ "):
            command = line if continued else line[2:]
            continued = command.endswith("\\")
            yield command


def perform(block: Block, folder: Path, environment: Mapping[str, str]) -> str | None:
    """Store or run one block in `folder`. Returns None, or what went wrong. Nothing it started is left running."""
    if block.file is not None:
        (folder / block.file).write_text(block.text)
        return None
    process = subprocess.Popen(
        ["bash", "-eu", "-o", "pipefail", "-c", block.text],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(block.seconds)
    except subprocess.TimeoutExpired:
        return f"not done after {block.seconds} s"
    finally:
        _end_group(process)
    return f"exit code {code}" if code else None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # when the block left nothing behind
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def reader_environment(folder: Path) -> dict[str, str]:
    """A new virtual environment beside `folder`, in front of the PATH."""
    place = folder.with_name(folder.name + "-venv")
    venv.create(place, with_pip=True)
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "VIRTUAL_ENV": str(place), "PATH": f"{place}/bin:{os.environ['PATH']}"}


@contextlib.contextmanager
def servers() -> Iterator[dict[str, str]]:
    """The settings that lead to a running broker and a running store."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        settings = {}
        for variable, service in {"CALLBOARD_BROKER": RABBITMQ, "CALLBOARD_STORE": REDIS}.items():
            provided = provide(service, Path(folder) / service.name)
            stack.callback(provided.close)
            settings[variable] = provided.url
        yield settings


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    todo = blocks((folder / "README.md").read_text())
    if not todo:
        print("README.md marks no block with <!-- run -->")
        return 1
    with servers() as settings:
        environment = {**reader_environment(folder), **settings}
        return 0 if all(_told(block, folder, environment) for block in todo) else 1


def _told(block: Block, folder: Path, environment: Mapping[str, str]) -> bool:
    print(f"--- {'file ' + block.file if block.file else block.text.rstrip()}", flush=True)
    began = time.monotonic()
    problem = perform(block, folder, environment)
    if problem is not None:
        print(f"README.md: {problem}:\n{block.text}", flush=True)
        return False
    print(f"    done in {time.monotonic() - began:.1f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
