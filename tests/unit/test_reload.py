"""A rule file that is changed while it is in use."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from task.errors import SettingsError
from taskmasters.reload import RuleFile, read_beside
from tests.helpers import await_until


def load(path: str) -> list[str]:
    """The lines of a file that must end with ``end``."""
    *lines, last = Path(path).read_text().splitlines() or [""]
    if last != "end":
        raise SettingsError(f"{path}: does not end")
    return lines


def write(path: Path, text: str) -> None:
    """What an editor does."""
    path.write_text(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A right file."""
    path = tmp_path / "rules"
    path.write_text("a\nend\n")
    return path


@asynccontextmanager
async def watching(
    path: Path, check: Callable[[list[str]], None] = lambda rules: None
) -> AsyncIterator[RuleFile[list[str]]]:
    """The file, looked at often."""
    file = RuleFile(str(path), load)
    file.interval = 0.01
    async with asyncio.timeout(20), file.watched(check):
        yield file


def test_a_right_change_is_taken(path: Path) -> None:
    """Written anew or replaced by another file, the new rules are in force, each change once."""

    async def main() -> None:
        used: list[list[str]] = []
        async with watching(path, used.append) as file:
            write(path, "a\nb\nend\n")
            await await_until(lambda: file.reloads == 1)
            other = path.with_suffix(".new")
            write(other, "c\nend\n")
            other.replace(path)
            await await_until(lambda: file.reloads == 2)

        assert used == [["a", "b"], ["c"]]
        assert file.rules == ["c"]

    asyncio.run(main())


def test_a_wrong_change_is_refused_until_it_is_right(path: Path) -> None:
    """With a mistake in the file, or the file gone, the old rules stay and the trouble is told; mended, it is taken."""

    async def main() -> None:
        async with watching(path) as file:
            write(path, "b\n")
            await await_until(lambda: "does not end" in file.trouble)
            assert file.rules == ["a"]
            assert file.metric({}).value == 1
            write(path, "b\nend\n")
            await await_until(lambda: file.rules == ["b"])

            assert file.trouble == ""
            assert file.metric({}).value == 0

    asyncio.run(main())


def test_what_the_taskmaster_refuses_is_not_taken(path: Path) -> None:
    """Rules that are right by themselves but not here leave the old ones in force."""

    def check(rules: list[str]) -> None:
        raise SettingsError("not on this bus")

    async def main() -> None:
        async with watching(path, check) as file:
            write(path, "b\nend\n")
            await await_until(lambda: file.trouble == "not on this bus")

            assert (file.rules, file.reloads) == (["a"], 0)

    asyncio.run(main())


def test_a_file_being_written_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read only when it has stayed the same from one look to the next."""
    sizes = [1, 2, 3, 4, 4]
    looks: list[int] = []

    def signature(path: str) -> tuple[int, int, int]:
        looks.append(sizes[min(len(looks), len(sizes) - 1)])
        return (0, looks[-1], 0)

    monkeypatch.setattr("taskmasters.reload._signature", signature)

    async def main() -> None:
        reads: list[list[int]] = []
        async with watching(path, lambda rules: reads.append(list(looks))) as file:
            await await_until(lambda: file.reloads)

            assert reads[0][:6] == [1, 2, 3, 4, 4, 4]

    asyncio.run(main())


def test_sighup_has_it_read_at_once(path: Path) -> None:
    """SIGHUP reads the file without waiting for the next look, also where nothing seems to have changed."""

    async def main() -> None:
        async with watching(path) as file:
            file.interval = 3600.0
            os.kill(os.getpid(), signal.SIGHUP)
            await await_until(lambda: file.reloads == 1)

    asyncio.run(main())


def test_a_wrong_file_at_the_start_is_an_error(path: Path) -> None:
    """There is nothing to go on with."""
    path.write_text("b\n")
    with pytest.raises(SettingsError):
        RuleFile(str(path), load)


def test_a_reader_lets_go_of_the_interpreter_often(path: Path) -> None:
    """While rules are read, other threads wait less for the interpreter than usual; afterwards as long as before."""
    usual = sys.getswitchinterval()

    def slow(path: str) -> float:
        if path == "wrong":
            raise SettingsError("wrong")
        return sys.getswitchinterval()

    async def main() -> None:
        assert await read_beside(slow, "right") < usual
        assert sys.getswitchinterval() == usual
        with pytest.raises(SettingsError):
            await read_beside(slow, "wrong")
        assert sys.getswitchinterval() == usual

    asyncio.run(main())
