"""The runner of the examples in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doc_runner import Command, File, check_document, matches, read_document
from tests.helpers import is_running, wait_until

DOCUMENT = """\
# Title

```console
$ echo one
one
$ printf '%s\\n' a \\
> b
a
b
```

<!-- file: sub/rules.toml -->

```toml
a = 1
```

<!-- not run -->
```console
$ false
```

```python
not a command
```

1. In a list:

   ```console
   $ false
   $ echo $?
   1
   ```
"""


def test_reads_commands_and_files() -> None:
    """Commands have their line, continuation and output; marked blocks are files or left out."""
    assert read_document(DOCUMENT) == [
        Command(4, "echo one", "one", False),
        Command(6, "printf '%s\\n' a \\\nb", "a\nb", False),
        File(14, "sub/rules.toml", "a = 1\n"),
        Command(30, "false", "", True),
        Command(31, "echo $?", "1", False),
    ]


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.c", "abc", False),
        ("a…c", "a and c", True),
        ("a…c", "a\nc", False),
        ("…", "", True),
        ("…", "a\nb", True),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…\nd", "a\nd", True),
        ("a\n…", "b\na", False),
        ("a", "a  \n\n", True),
        ("", "", True),
        ("", "a", False),
        ("a", "a\nb", False),
    ],
)
def test_dots_stand_for_anything(expected: str, actual: str, equal: bool) -> None:
    """… matches within a line, or whole lines where it stands alone."""
    assert matches(expected, actual) is equal


def write(folder: Path, text: str) -> Path:
    document = folder / "document.md"
    document.write_text(text)
    return document


def test_runs_a_whole_document(tmp_path: Path) -> None:
    """Every command of a correct document runs, in its folder, with its files."""
    text = DOCUMENT + "```console\n$ cat sub/rules.toml; cd sub; X=5\na = 1\n$ ls; echo $X; cat\nrules.toml\n5\n```\n"

    assert check_document(write(tmp_path, text), tmp_path) == 6


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("$ echo one\ntwo", "should print\ntwo\nbut printed\none"),
        ("$ echo one >&2\n", "but printed\none"),
        ("$ false", "exited with 1"),
        ("$ exit 3", "the shell ended at: exit 3"),
        ("$ taskbus no-such-command\n…", "exited with 2"),
    ],
)
def test_tells_what_is_wrong(tmp_path: Path, block: str, told: str) -> None:
    """A command that prints or does something else fails with its line and what happened."""
    with pytest.raises(AssertionError, match=r"document\.md:2|the shell ended") as caught:
        check_document(write(tmp_path, f"```console\n{block}\n```\n"), tmp_path)

    assert told in str(caught.value)


def test_a_block_without_a_command_is_refused() -> None:
    """Output that belongs to no command would never be compared."""
    with pytest.raises(ValueError, match="line 2: a console block begins with a command"):
        read_document("```console\noutput\n```\n")


def test_background_jobs_end_with_the_document(tmp_path: Path) -> None:
    """What a document leaves running is killed."""
    document = write(tmp_path, "```console\n$ sleep 300 & echo $! > pid\n$ cat pid\n…\n```\n")
    check_document(document, tmp_path)

    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_running(pid))
