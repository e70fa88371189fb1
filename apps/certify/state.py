"""The state that tasks leave behind, as the user says it can be seen: a folder, a command, a query."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote

import orjson

from apps.certify.errors import CertifyError
from task.errors import SettingsError

__all__ = ["CommandProbe", "FolderProbe", "Item", "NoProbe", "Probe", "SqlProbe", "State", "run_command"]

#: Bytes of which a content is kept to be compared by lines; of larger ones only the digest.
_KEPT = 1 << 20
#: Seconds a command of the user's may take.
_PATIENCE = 300.0


class Item(NamedTuple):
    """One thing of a state. ``text`` is its content, None where it is no text or too long."""

    digest: str
    size: int
    text: str | None


#: Things by name.
State = Mapping[str, Item]


def item(content: bytes) -> Item:
    """What a content is compared by."""
    text = None
    if len(content) <= _KEPT:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = None
    return Item(hashlib.blake2b(content, digest_size=16).hexdigest(), len(content), text)


class Probe(Protocol):
    """Looks at the state, and makes it fresh."""

    #: For people.
    name: str
    #: What it may mean when there is nothing to be seen after tasks were done; empty if that is as it should be.
    unseen: str

    def look(self) -> State:
        """The state now. Raises CertifyError."""
        ...

    def reset(self) -> None:
        """Make it fresh. Raises CertifyError."""
        ...


class NoProbe:
    """There is nothing to look at but results."""

    name = "none: only results were compared"
    unseen = ""

    def __init__(self, reset: str | None = None) -> None:
        self._reset = reset

    def look(self) -> State:
        """Nothing."""
        return {}

    def reset(self) -> None:
        """What the user gave for it, if anything."""
        if self._reset is not None:
            run_command(self._reset, "--reset")


class FolderProbe(NoProbe):
    """Names and contents of the files below a folder. ``ignore`` are patterns of names below it.

    Without ``reset`` the folder must be empty, or missing; then it is emptied again between runs, and at the end.

    Raises:
        SettingsError: it is not empty, and nothing says how to make it fresh.
    """

    def __init__(self, folder: str, reset: str | None, ignore: Sequence[str] = ()) -> None:
        super().__init__(reset)
        self.name = f"the folder {folder}"
        self.unseen = (
            f"{folder} was empty after all tasks were done: does the worker write elsewhere? "
            "Nothing it left was compared"
        )
        self._folder = Path(folder).resolve()
        self._ignore = ignore
        if self._folder.exists() and not self._folder.is_dir():
            raise SettingsError(f"--state-dir {folder}: is a file; it takes a folder")
        if reset is None and self._folder.exists() and any(self._folder.iterdir()):
            raise SettingsError(
                f"--state-dir {folder}: is not empty, and would have to be emptied between runs: "
                "give an empty one, or --reset CMD that makes it fresh"
            )

    def look(self) -> State:
        """Every file, link and empty folder."""
        found: dict[str, Item] = {}
        for root, folders, files in os.walk(self._folder):
            for name in (*files, *folders):
                path = Path(root, name)
                shown = path.relative_to(self._folder).as_posix()
                if any(fnmatchcase(shown, pattern) for pattern in self._ignore):
                    continue
                if path.is_symlink():
                    found[shown] = item(os.fsencode(os.readlink(path)))
                elif path.is_file():
                    found[shown] = item(path.read_bytes())
                elif path.is_dir() and not any(path.iterdir()):
                    found[shown + "/"] = item(b"")
        return found

    def reset(self) -> None:
        """Take away what the run has made, or what the user gave."""
        if self._reset is not None:
            super().reset()
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for entry in self._folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


class CommandProbe(NoProbe):
    """The lines that a command prints."""

    def __init__(self, command: str, reset: str) -> None:
        super().__init__(reset)
        self.name = f"what {command!r} prints"
        self._command = command

    def look(self) -> State:
        """Its output."""
        return {"the output": item(run_command(self._command, "--state-command"))}


class SqlProbe(NoProbe):
    """The rows of a query, each a line of JSON, sorted. ``sqlite:FILE``, or a URL as SQLAlchemy has it."""

    def __init__(self, url: str, query: str, reset: str) -> None:
        super().__init__(reset)
        self.name = f"the rows of {query!r}"
        self._url = url
        self._query = query

    def look(self) -> State:
        """The rows."""
        rows = self._sqlite() if self._url.startswith("sqlite:") else self._sqlalchemy()
        lines = sorted(orjson.dumps(list(row), default=str) for row in rows)
        return {"the rows": item(b"".join(line + b"\n" for line in lines))}

    def _sqlite(self) -> Sequence[Sequence[object]]:
        path = self._url.removeprefix("sqlite:").removeprefix("///")
        try:
            with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=30.0)) as database:
                return list(database.execute(self._query))
        except sqlite3.Error as error:
            raise CertifyError(f"--state-sql: {path}: {error}; --reset is to make it with its tables") from None

    def _sqlalchemy(self) -> Sequence[Sequence[object]]:
        import sqlalchemy
        from sqlalchemy.exc import ArgumentError, SQLAlchemyError

        try:
            engine = sqlalchemy.create_engine(self._url)
            try:
                with engine.connect() as connection:
                    return [tuple(row) for row in connection.execute(sqlalchemy.text(self._query))]
            finally:
                engine.dispose()
        except (ArgumentError, ImportError):
            # What it says may show the password.
            raise SettingsError(
                "--state-sql: the URL cannot be used: write sqlite:FILE, postgresql+psycopg://… or mysql+pymysql://…"
            ) from None
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
            raise CertifyError(f"--state-sql: {reason}") from None


def run_command(command: str, option: str) -> bytes:
    """What a command of the user's prints. It is run without a shell.

    Raises:
        SettingsError: it cannot be started.
        CertifyError: it fails.
    """
    try:
        words = shlex.split(command)
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, ValueError, IndexError) as error:
        raise SettingsError(f"{option}: {command!r} cannot be run: {error}") from None
    except subprocess.TimeoutExpired:
        raise CertifyError(f"{option}: {command!r} did not end within {_PATIENCE:g} s") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CertifyError(f"{option}: {command!r} ended with {done.returncode}{': ' if told else ''}{''.join(told)}")
    return done.stdout
