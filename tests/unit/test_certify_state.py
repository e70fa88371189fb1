"""Looking at the state, and making it fresh."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from apps.certify.errors import CertifyError
from apps.certify.state import CommandProbe, FolderProbe, NoProbe, SqlProbe
from task.errors import SettingsError


def python(code: str) -> str:
    return f'{sys.executable} -c "{code}"'


def test_a_folder_is_seen_and_emptied(tmp_path: Path) -> None:
    """Files, links and empty folders count, in folders too; what is to be ignored does not; then it is empty again."""
    probe = FolderProbe(str(tmp_path / "out"), None, ["*.log", "cache/*"])
    probe.reset()
    out = tmp_path / "out"
    for name in ("a.txt", "b.log", "deep/c.txt", "cache/d.txt"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(name)
    (out / "empty").mkdir()
    (out / "link").symlink_to("a.txt")

    found = probe.look()
    probe.reset()

    assert sorted(found) == ["a.txt", "deep/c.txt", "empty/", "link"]
    assert found["a.txt"].text == "a.txt"
    assert list(out.iterdir()) == []


def test_a_full_folder_is_not_emptied(tmp_path: Path) -> None:
    """What the user has in the folder is never taken away; with --reset it is the user's to make fresh."""
    (tmp_path / "mine").write_text("precious")

    with pytest.raises(SettingsError, match="not empty"):
        FolderProbe(str(tmp_path), None)
    FolderProbe(str(tmp_path), python("pass")).reset()

    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(SettingsError, match="is a file"):
        FolderProbe(str(tmp_path / "mine"), None)


def test_a_command_tells_the_state(tmp_path: Path) -> None:
    """Its output is compared; --reset is run; one that fails, or does not exist, is told."""
    file = tmp_path / "file"
    probe = CommandProbe(python("print(40 + 2)"), python(f"open('{file}', 'w')"))
    probe.reset()

    assert file.exists()
    assert probe.look()["the output"].text == "42\n"
    with pytest.raises(CertifyError, match="ended with 3"):
        CommandProbe(python("raise SystemExit(3)"), "true").look()
    with pytest.raises(SettingsError, match="cannot be run"):
        CommandProbe("/no/such/program", "true").look()
    with pytest.raises(SettingsError, match="--reset"):
        NoProbe("").reset()
    assert NoProbe().look() == {}


@pytest.mark.parametrize("url", ["sqlite:{}", "sqlite:///{}", "sqlite+pysqlite:///{}"])
def test_rows_tell_the_state(tmp_path: Path, url: str) -> None:
    """The rows of a query are lines, in an order of their own, by stdlib and by SQLAlchemy."""
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table t (name text, hits int)")
        database.executemany("insert into t values (?, ?)", [("b", 2), ("a", 1)])
        database.commit()

    probe = SqlProbe(url.format(path), "select name, hits from t", "true")

    assert probe.look()["the rows"].text == '["a",1]\n["b",2]\n'
    with pytest.raises(CertifyError, match="no such table"):
        SqlProbe(url.format(path), "select * from missing", "true").look()


def test_a_database_is_not_made_and_no_password_is_shown(tmp_path: Path) -> None:
    """A file that is not there is told, not made; a URL that is wrong is not repeated."""
    with pytest.raises(CertifyError, match=r"none\.db"):
        SqlProbe(f"sqlite:{tmp_path / 'none.db'}", "select 1", "true").look()
    with pytest.raises(SettingsError) as caught:
        SqlProbe("nonsense://u:hunter2@h/d", "select 1", "true").look()

    assert list(tmp_path.iterdir()) == []
    assert "hunter2" not in str(caught.value)
