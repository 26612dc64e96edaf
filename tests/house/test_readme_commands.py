"""The reader of the README: which blocks it runs, and when it calls the README wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from house.readme_commands import Block, ReadmeWrong, blocks, perform

README = """
# A project

```sh
rm -rf not-marked
```

<!-- file: app.py -->
```python
print("from the file")
```

<!-- run -->
```console
$ python app.py
from the file
$ echo one \\
    two
one two
```

<!-- run 300 -->

```sh
test -e app.py
```
"""


def test_only_marked_blocks_are_taken_in_their_order() -> None:
    assert blocks(README) == [
        Block(text='print("from the file")\n', file="app.py"),
        Block(text="python app.py\necho one \\\n    two\n"),
        Block(text="test -e app.py\n", seconds=300),
    ]


@pytest.mark.parametrize(
    ("readme", "complaint"),
    [
        ("<!-- run -->\nno fence\n", "1 marks, but only 0"),
        ("<!-- run -->\n```python\nprint()\n```\n", "'python' cannot be run"),
        ("<!-- run -->\n```console\nonly output\n```\n", "holds no command"),
    ],
)
def test_a_mark_that_would_run_nothing_is_an_error(readme: str, complaint: str) -> None:
    with pytest.raises(ReadmeWrong, match=complaint):
        blocks(readme)


def test_blocks_are_performed_in_the_folder(tmp_path: Path) -> None:
    assert [perform(block, tmp_path, os.environ) for block in blocks(README)] == [None, None, None]
    assert (tmp_path / "app.py").exists()


def test_a_failing_command_is_told_with_its_exit_code(tmp_path: Path) -> None:
    assert perform(Block(text="exit 3\necho not reached"), tmp_path, os.environ) == "exit code 3"
    assert perform(Block(text="false | true"), tmp_path, os.environ) == "exit code 1"


def test_a_block_that_overruns_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)

    assert perform(Block(text="sleep 1000 > pipe & wait", seconds=1), tmp_path, os.environ) == "not done after 1 s"

    # The end of the pipe is there once the last process that could write into it is gone.
    assert os.read(reader, 1) == b""
    os.close(reader)
